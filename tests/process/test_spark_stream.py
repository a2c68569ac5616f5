"""A streaming query whose driver is killed during a batch: the sink gets every row exactly once."""

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
from tests.support.spark.bundles import PREDICTED, log_of, logging_bundle
from tests.support.spark.cluster import ROOT, java_env

pytest_plugins = ("tests.support.spark.fixtures",)
pytestmark = [
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
ROWS = 50  # per file
SECONDS = 0.02  # per row: a batch takes a second, so that the kill happens during a batch


def text_of(row: int) -> str:
    return f"poison {row}" if row % 20 == 7 else f"text {row}"


def write(folder: Path, files: int) -> None:
    """Write files with increasing modification times."""
    folder.mkdir()
    for number in range(files):
        rows = range(number * ROWS, (number + 1) * ROWS)
        path = folder / f"{number}.json"
        path.write_text("".join(json.dumps({"id": row, "text": text_of(row)}) + "\n" for row in rows))
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))


@contextmanager
def query(folder: Path, bundle: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The query in a separate process, which is killed at the end with its JVM and its Python workers."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | java_env(folder)
    command = [sys.executable, str(stream.__file__), str(bundle), str(folder)]
    with (folder / "driver.log").open("ab") as log:
        driver = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield driver
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait(30)


def wait_for_batch(batch: int, driver: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the model predicts rows of the file with this number."""
    words = {f"text {row}" for row in range(batch * ROWS, (batch + 1) * ROWS)}
    while not words & set(log_of(folder, PREDICTED)):
        assert driver.poll() is None, (folder / "driver.log").read_text(errors="replace")[-3000:]
        time.sleep(0.01)


def committed(folder: Path) -> set[str]:
    """The numbers of the batches that are done."""
    return {path.name for path in (folder / "checkpoint" / "commits").glob("[0-9]*")}


@pytest.mark.parametrize(
    ("files", "killed"), [(3, [1]), pytest.param(6, [1, 4], marks=pytest.mark.long)], ids=["once", "twice"]
)
def test_driver_killed_during_a_batch_loses_and_duplicates_no_row(
    spark: Any, tmp_path: Path, files: int, killed: Sequence[int]
) -> None:
    write(tmp_path / "in", files)
    bundle = logging_bundle(tmp_path, seconds=SECONDS).path
    for batch in killed:
        with query(tmp_path, bundle) as driver:
            wait_for_batch(batch, driver, tmp_path)
        assert committed(tmp_path) == {str(number) for number in range(batch)}
    stream.score_stream(spark, bundle, tmp_path)
    assert committed(tmp_path) == {str(number) for number in range(files)}
    rows = spark.read.parquet(str(tmp_path / "out")).collect()
    assert Counter(row["id"] for row in rows) == Counter(range(files * ROWS))
    for row in rows:
        poison = row["text"].startswith("poison")
        assert row["predictions"] == (None if poison else text_of(row["id"]).upper())
        assert (row["error"]["code"] if row["error"] else None) == ("MODEL_RAISED" if poison else None)
    predictions = Counter(log_of(tmp_path, PREDICTED))
    repeated = {int(text.split()[1]) // ROWS for text, times in predictions.items() if times > 1}
    assert repeated <= set(killed)  # batches that were done before a kill are not repeated
