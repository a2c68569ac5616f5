"""A stream whose driver is killed in the middle of a batch: the sink has every row exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.spark import stream
from tests.support.spark.bundles import ASKED, log_of, quick_bundle
from tests.support.spark.cluster import ROOT, java_env

pytest_plugins = ("tests.support.spark.fixtures",)
pytestmark = [
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
ROWS = 50  # a file
SECONDS = 0.02  # a row: a batch takes a second, and a kill falls into it


def text_of(row: int) -> str:
    return f"poison {row}" if row % 20 == 7 else f"text {row}"


def write(folder: Path, files: int) -> None:
    """Files whose order is that of their times."""
    folder.mkdir()
    for number in range(files):
        rows = range(number * ROWS, (number + 1) * ROWS)
        path = folder / f"{number}.json"
        path.write_text("".join(json.dumps({"id": row, "text": text_of(row)}) + "\n" for row in rows))
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))


@contextmanager
def query(folder: Path, bundle: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The query in a process of its own; it, its JVM and its Python workers are killed at the end."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | java_env(folder)
    command = [sys.executable, str(stream.__file__), str(bundle), str(folder)]
    with (folder / "driver.log").open("ab") as log:
        driver = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield driver
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait(30)


def begun(batch: int, driver: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the model works on the file of this number."""
    words = {f"text {row}" for row in range(batch * ROWS, (batch + 1) * ROWS)}
    while not words & set(log_of(folder, ASKED)):
        assert driver.poll() is None, (folder / "driver.log").read_text(errors="replace")[-3000:]
        time.sleep(0.01)


def committed(folder: Path) -> set[str]:
    """Batches that are done."""
    return {path.name for path in (folder / "checkpoint" / "commits").glob("[0-9]*")}


@pytest.mark.parametrize(
    ("files", "killed"), [(3, [1]), pytest.param(6, [1, 4], marks=pytest.mark.long)], ids=["once", "twice"]
)
def test_a_driver_killed_within_a_batch_loses_and_doubles_nothing(
    spark: Any, tmp_path: Path, files: int, killed: Sequence[int]
) -> None:
    write(tmp_path / "in", files)
    bundle = quick_bundle(tmp_path, SECONDS).path
    for batch in killed:
        with query(tmp_path, bundle) as driver:
            begun(batch, driver, tmp_path)
        assert committed(tmp_path) == {str(number) for number in range(batch)}
    stream.score_stream(spark, bundle, tmp_path)
    assert committed(tmp_path) == {str(number) for number in range(files)}
    found = spark.read.parquet(str(tmp_path / "out")).collect()
    assert Counter(row["id"] for row in found) == Counter(range(files * ROWS))
    for row in found:
        poison = row["text"].startswith("poison")
        assert row["predictions"] == (None if poison else text_of(row["id"]).upper())
        assert (row["error"]["code"] if row["error"] else None) == ("MODEL_RAISED" if poison else None)
    asked = Counter(log_of(tmp_path, ASKED))
    again = {int(text.split()[1]) // ROWS for text, times in asked.items() if times > 1}
    assert again <= set(killed)  # what was done before a kill is not done again
