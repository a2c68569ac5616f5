"""Batch jobs as processes: killed, interrupted, with a full disk, and with more data than should fit into memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.batch import slow_job
from tests.support.forked import forked

OUTPUTS = ["out", "out.csv", "out.jsonl", "out.parquet"]
FINAL = {"out", "out.csv", "out.jsonl", "out.parquet"}
SLOW = 0.00005  # seconds per row


class Job:
    """A separate process that runs `slow_job.job`."""

    def __init__(self, log: Path, source: Path, output: Path, **options: Any) -> None:
        self._log = log
        self.process = forked(partial(slow_job.job, **options), source, output, out=log)

    def reach(self, rows: int) -> None:
        """Wait until the job has reported at least `rows` rows."""
        while not any(count >= rows for count in self._reported()):
            assert self.process.exitcode is None, f"the job exited before {rows} rows"
            time.sleep(0.002)

    def outcome(self) -> dict[str, Any]:
        """Wait for the end of the process and return its last line of output, a JSON object."""
        self.process.join(120)
        last: dict[str, Any] = json.loads(self._log.read_text().splitlines()[-1])
        return last

    def _reported(self) -> Iterator[int]:
        text = self._log.read_text() if self._log.exists() else ""
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return (int(line.split()[1]) for line in lines if line.startswith("rows "))


Start = Callable[..., Job]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts jobs, and kills them at the end of the test."""
    jobs: list[Job] = []
    logs = tmp_path_factory.mktemp("logs")

    def begin(source: Path, output: Path, **options: Any) -> Job:
        jobs.append(Job(logs / str(len(jobs)), source, output, **options))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.process.kill()
        job.process.join()


def make(path: Path, size: int) -> Path:
    """Write a CSV of about `size` bytes, 1 KB per row."""
    block = b"".join(b"%d,%s\n" % (n, b"a film of few words " * 50) for n in range(1000))
    with path.open("wb") as stream:
        stream.write(b"id,text\n")
        for _ in range(max(1, size // len(block))):
            stream.write(block)
    return path


@pytest.mark.parametrize("output", OUTPUTS)
def test_killed_job_leaves_no_output_and_can_be_resumed(tmp_path: Path, start: Start, output: str) -> None:
    source = make(tmp_path / "in.csv", 10_000_000)
    job = start(source, tmp_path / output, seconds=SLOW)
    job.reach(6_000)
    job.process.kill()
    job.process.join(30)
    assert not FINAL & {entry.name for entry in tmp_path.iterdir()}
    report = start(source, tmp_path / output).outcome()
    assert report["rows_in"] == report["rows_ok"] == sum(1 for _ in source.open()) - 1
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_interrupted_job_reports_completed_rows_and_resumes(tmp_path: Path, start: Start) -> None:
    source = make(tmp_path / "in.csv", 20_000_000)  # it must not end before the signal
    job = start(source, tmp_path / "out.csv", seconds=SLOW)
    job.reach(6_000)
    os.kill(job.process.pid or 0, signal.SIGINT)
    error = job.outcome()
    assert error["code"] == "INTERRUPTED"
    assert "rows are done" in str(error["cause"])
    assert job.process.exitcode == 130
    assert {entry.name for entry in tmp_path.iterdir()} == {"in.csv", ".out.csv.likewise-staging"}
    report = start(source, tmp_path / "out.csv").outcome()
    assert report["rows_ok"] == sum(1 for _ in source.open()) - 1


@pytest.mark.parametrize("output", OUTPUTS)
def test_job_resumes_after_a_full_disk(tmp_path: Path, tiny_disk: Path, start: Start, output: str) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"{os.urandom(500).hex()}\n" for _ in range(4000)))
    error = start(source, tiny_disk / output, window=100).outcome()
    assert error["code"] == "OUTPUT_REFUSED"
    assert "No space left" in str(error["cause"])
    assert "rows are done" in str(error["cause"])
    assert "then run the same command again" in str(error["remedy"])
    subprocess.run(["mount", "-o", "remount,size=32m", str(tiny_disk)], check=True)
    assert start(source, tiny_disk / output, window=100).outcome()["rows_ok"] == 4000
    assert not [entry for entry in tiny_disk.iterdir() if entry.name.startswith(".")]


def test_second_job_on_the_same_output_is_refused(tmp_path: Path, start: Start) -> None:
    source = make(tmp_path / "in.csv", 10_000_000)
    first = start(source, tmp_path / "out", seconds=SLOW)
    first.reach(64)
    assert "another job is writing" in str(start(source, tmp_path / "out").outcome()["cause"])
    assert first.outcome()["rows_ok"] == sum(1 for _ in source.open()) - 1


@pytest.mark.parametrize("output", OUTPUTS)
def test_file_size_limit_is_reported(tmp_path: Path, start: Start, output: str) -> None:
    source = make(tmp_path / "in.csv", 3_000_000)
    error = start(source, tmp_path / output, file_limit=10_000).outcome()
    assert error["code"] == "OUTPUT_REFUSED"
    assert "File too large; 512 rows are done" in str(error["cause"])
    assert {entry.name for entry in tmp_path.iterdir()} == {"in.csv", f".{output}.likewise-staging"}


@pytest.mark.parametrize("output", OUTPUTS)
def test_full_disk_is_reported(tmp_path: Path, tiny_disk: Path, start: Start, output: str) -> None:
    source = tmp_path / "in.csv"
    # random text, so that Parquet cannot compress it
    source.write_text("text\n" + "".join(f"{os.urandom(500).hex()}\n" for _ in range(4000)))
    error = start(source, tiny_disk / output).outcome()
    assert error["code"] == "OUTPUT_REFUSED"
    assert "No space left" in str(error["cause"])
    assert "free some space" in str(error["remedy"])
    assert not list(tiny_disk.iterdir())


def test_read_only_disk_is_reported(tmp_path: Path, tiny_disk: Path, start: Start) -> None:
    source = make(tmp_path / "in.csv", 1)
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    error = start(source, tiny_disk / "out.csv").outcome()
    assert error["code"] == "OUTPUT_REFUSED"
    assert "Read-only" in str(error["cause"])


@pytest.mark.parametrize("output", ["out", pytest.param("out.parquet", marks=pytest.mark.long)])
def test_memory_does_not_grow_with_the_input(tmp_path: Path, output: str) -> None:
    peaks = []
    for size in (20_000_000, 200_000_000):
        source = make(tmp_path / "in.csv", size)
        command = [sys.executable, slow_job.__file__, str(source), str(tmp_path / f"{size}-{output}")]
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=120, check=True)
        report = json.loads(done.stdout.splitlines()[-1])
        assert report["rows_ok"] == report["rows_in"]
        peaks.append(report["peak"])
    small, large = peaks
    assert large < small + 60
    assert large < 400
