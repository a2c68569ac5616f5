"""A stream whose driver is killed in the middle of a batch, twice: the sink has every row exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.process.spark_cluster import QUICK_START, ROOT
from tests.process.spark_room import ASKED, log_of, logging_bundle

pytest_plugins = ("tests.process.spark_fixtures",)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]
SCRIPT = Path(__file__).with_name("spark_stream.py")
FILES, ROWS = 6, 50  # rows a file
SECONDS = 0.02  # a row: a batch takes a second, and a kill falls into it


def text_of(row: int) -> str:
    return f"poison {row}" if row % 20 == 7 else f"text {row}"


def write(folder: Path) -> None:
    """Files whose order is that of their times."""
    folder.mkdir()
    for number in range(FILES):
        rows = range(number * ROWS, (number + 1) * ROWS)
        path = folder / f"{number}.json"
        path.write_text("".join(json.dumps({"id": row, "text": text_of(row)}) + "\n" for row in rows))
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))


class Query:
    """The process of the streaming query."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self._log = folder / "driver.log"
        self._commits = folder / "checkpoint" / "commits"
        command = [sys.executable, str(SCRIPT), str(bundle), *(str(folder / n) for n in ("in", "out", "checkpoint"))]
        env = os.environ | {"PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1", "JAVA_TOOL_OPTIONS": QUICK_START}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)

    def committed(self) -> set[str]:
        """Batches that are done."""
        return {path.name for path in self._commits.glob("[0-9]*")}

    def kill_in(self, batch: int, folder: Path) -> None:
        """Once the model works on the file of this number, `kill -9` the driver, its JVM and its Python workers."""
        words = {f"text {row}" for row in range(batch * ROWS, (batch + 1) * ROWS)}
        while not words & {text.strip("'") for text in log_of(folder, ASKED)}:
            assert self._process.poll() is None, self.log()
            time.sleep(0.01)
        self.stop()

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    def end(self) -> None:
        assert self._process.wait(240) == 0, self.log()

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


def test_a_driver_killed_within_a_batch_loses_and_doubles_nothing(spark: Any, tmp_path: Path) -> None:
    write(tmp_path / "in")
    bundle = logging_bundle(tmp_path, seconds=SECONDS).path
    for batch in (1, 4):
        query = Query(tmp_path, bundle)
        try:
            query.kill_in(batch, tmp_path)
        finally:
            query.stop()
        assert query.committed() == {str(number) for number in range(batch)}
    query = Query(tmp_path, bundle)
    try:
        query.end()
    finally:
        query.stop()
    assert query.committed() == {str(number) for number in range(FILES)}
    found = spark.read.parquet(str(tmp_path / "out")).collect()
    assert Counter(row["id"] for row in found) == Counter(range(FILES * ROWS))
    for row in found:
        poison = row["text"].startswith("poison")
        assert row["predictions"] == (None if poison else text_of(row["id"]).upper())
        assert (row["error"]["code"] if row["error"] else None) == ("MODEL_RAISED" if poison else None)
    asked = Counter(text.strip("'") for text in log_of(tmp_path, ASKED))
    again = {int(text.split()[1]) // ROWS for text, times in asked.items() if times > 1}
    assert again <= {1, 4}  # what was done before a kill is not done again
