"""Batch jobs as processes: killed, interrupted, out of disk, and over more data than memory should hold."""

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
SLOW = 0.00005  # seconds a row


class Job:
    """`slow_job.job` in a process of its own."""

    def __init__(self, log: Path, source: Path, output: Path, **options: Any) -> None:
        self._log = log
        self.process = forked(partial(slow_job.job, **options), source, output, out=log)

    def reach(self, rows: int) -> None:
        """Wait until it has told of so many rows."""
        while not any(told >= rows for told in self._told()):
            assert self.process.exitcode is None, "the job ended before it got so far"
            time.sleep(0.002)

    def outcome(self) -> dict[str, Any]:
        """The JSON line that it ends with."""
        self.process.join(120)
        last: dict[str, Any] = json.loads(self._log.read_text().splitlines()[-1])
        return last

    def _told(self) -> Iterator[int]:
        text = self._log.read_text() if self._log.exists() else ""
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return (int(line.split()[1]) for line in lines if line.startswith("rows "))


Start = Callable[..., Job]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a job; none outlives its test."""
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
    """A CSV of about `size` bytes, 1 KB a row."""
    block = b"".join(b"%d,%s\n" % (n, b"a film of few words " * 50) for n in range(1000))
    with path.open("wb") as stream:
        stream.write(b"id,text\n")
        for _ in range(max(1, size // len(block))):
            stream.write(block)
    return path


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_killed_job_leaves_no_output_and_the_next_is_whole(tmp_path: Path, start: Start, output: str) -> None:
    source = make(tmp_path / "in.csv", 10_000_000)
    job = start(source, tmp_path / output, seconds=SLOW)
    job.reach(6_000)
    job.process.kill()
    job.process.join(30)
    assert not FINAL & {entry.name for entry in tmp_path.iterdir()}
    report = start(source, tmp_path / output).outcome()
    assert report["rows_in"] == report["rows_ok"] == sum(1 for _ in source.open()) - 1
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_an_interrupted_job_says_what_is_done_and_goes_on(tmp_path: Path, start: Start) -> None:
    source = make(tmp_path / "in.csv", 10_000_000)
    job = start(source, tmp_path / "out.csv", seconds=SLOW)
    job.reach(6_000)
    os.kill(job.process.pid or 0, signal.SIGINT)
    said = job.outcome()
    assert said["code"] == "INTERRUPTED"
    assert "rows are done" in str(said["cause"])
    assert job.process.exitcode == 130
    assert {entry.name for entry in tmp_path.iterdir()} == {"in.csv", ".out.csv.likewise-staging"}
    report = start(source, tmp_path / "out.csv").outcome()
    assert report["rows_ok"] == sum(1 for _ in source.open()) - 1


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_job_goes_on_when_the_disk_has_space_again(
    tmp_path: Path, tiny_disk: Path, start: Start, output: str
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"{os.urandom(500).hex()}\n" for _ in range(4000)))
    said = start(source, tiny_disk / output, window=100).outcome()
    assert said["code"] == "OUTPUT_REFUSED"
    assert "No space left" in str(said["cause"])
    assert "rows are done" in str(said["cause"])
    assert "then run the same command again" in str(said["remedy"])
    subprocess.run(["mount", "-o", "remount,size=32m", str(tiny_disk)], check=True)
    assert start(source, tiny_disk / output, window=100).outcome()["rows_ok"] == 4000
    assert not [entry for entry in tiny_disk.iterdir() if entry.name.startswith(".")]


def test_two_processes_on_one_output(tmp_path: Path, start: Start) -> None:
    source = make(tmp_path / "in.csv", 10_000_000)
    first = start(source, tmp_path / "out", seconds=SLOW)
    first.reach(64)
    assert "another job is writing" in str(start(source, tmp_path / "out").outcome()["cause"])
    assert first.outcome()["rows_ok"] == sum(1 for _ in source.open()) - 1


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_limit_on_file_sizes(tmp_path: Path, start: Start, output: str) -> None:
    source = make(tmp_path / "in.csv", 3_000_000)
    said = start(source, tmp_path / output, file_limit=10_000).outcome()
    assert said["code"] == "OUTPUT_REFUSED"
    assert "File too large" in str(said["cause"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_full_disk(tmp_path: Path, tiny_disk: Path, start: Start, output: str) -> None:
    source = tmp_path / "in.csv"
    # random text, so that Parquet cannot fold it away
    source.write_text("text\n" + "".join(f"{os.urandom(500).hex()}\n" for _ in range(4000)))
    said = start(source, tiny_disk / output).outcome()
    assert said["code"] == "OUTPUT_REFUSED"
    assert "No space left" in str(said["cause"])
    assert "free some space" in str(said["remedy"])
    assert not list(tiny_disk.iterdir())


def test_a_read_only_disk(tmp_path: Path, tiny_disk: Path, start: Start) -> None:
    source = make(tmp_path / "in.csv", 1)
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    said = start(source, tiny_disk / "out.csv").outcome()
    assert said["code"] == "OUTPUT_REFUSED"
    assert "Read-only" in str(said["cause"])


@pytest.mark.parametrize("output", ["out", "out.parquet"])
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
