"""Batch jobs as processes: killed, interrupted, out of disk, and over more data than memory should hold."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

JOB = Path(__file__).with_name("batch_job.py")
OUTPUTS = ["out", "out.csv", "out.jsonl", "out.parquet"]
FINAL = {"out", "out.csv", "out.jsonl", "out.parquet"}


class Start(Protocol):
    def __call__(
        self, source: Path, output: Path, *seconds: str, limit: int | None = None
    ) -> subprocess.Popen[str]: ...


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a job; `limit`: bytes that a file may have. None outlives its test."""
    with ExitStack() as stop:

        def begin(source: Path, output: Path, *seconds: str, limit: int | None = None) -> subprocess.Popen[str]:
            def before() -> None:
                if limit is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

            command = [sys.executable, str(JOB), str(source), str(output), *seconds]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=before)
            stop.enter_context(process)  # waits, and closes the pipe
            stop.callback(process.kill)
            return process

        yield begin


def outcome(process: subprocess.Popen[str]) -> dict[str, object]:
    """The JSON line that a job ends with."""
    said, _ = process.communicate(timeout=120)
    last: dict[str, object] = json.loads(said.splitlines()[-1])
    return last


def wait_for_rows(process: subprocess.Popen[str], rows: int) -> None:
    """Read the job's progress up to `rows` rows."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line.split()[1]) >= rows:
            return
    raise AssertionError("the job ended before it got so far")


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
    source = make(tmp_path / "in.csv", 20_000_000)
    job = start(source, tmp_path / output, "0.00005")
    wait_for_rows(job, 12_000)
    job.send_signal(signal.SIGKILL)
    job.wait(30)
    assert not FINAL & {entry.name for entry in tmp_path.iterdir()}
    report = outcome(start(source, tmp_path / output))
    assert report["rows_in"] == report["rows_ok"] == sum(1 for _ in source.open()) - 1
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_an_interrupted_job_says_what_is_done_and_goes_on(tmp_path: Path, start: Start) -> None:
    source = make(tmp_path / "in.csv", 20_000_000)
    job = start(source, tmp_path / "out.csv", "0.00005")
    wait_for_rows(job, 12_000)
    job.send_signal(signal.SIGINT)
    said = outcome(job)
    assert said["code"] == "INTERRUPTED"
    assert "rows are done" in str(said["cause"])
    assert job.returncode == 130
    assert {entry.name for entry in tmp_path.iterdir()} == {"in.csv", ".out.csv.likewise-staging"}
    report = outcome(start(source, tmp_path / "out.csv"))
    assert report["rows_ok"] == sum(1 for _ in source.open()) - 1


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_job_goes_on_when_the_disk_has_space_again(
    tmp_path: Path, tiny_disk: Path, start: Start, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDOW", "100")
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"{os.urandom(500).hex()}\n" for _ in range(4000)))
    said = outcome(start(source, tiny_disk / output))
    assert said["code"] == "OUTPUT_REFUSED"
    assert "No space left" in str(said["cause"])
    assert "rows are done" in str(said["cause"])
    assert "then run the same command again" in str(said["remedy"])
    subprocess.run(["mount", "-o", "remount,size=32m", str(tiny_disk)], check=True)
    assert outcome(start(source, tiny_disk / output))["rows_ok"] == 4000
    monkeypatch.delenv("WINDOW")
    assert not [entry for entry in tiny_disk.iterdir() if entry.name.startswith(".")]


def test_two_processes_on_one_output(tmp_path: Path, start: Start) -> None:
    source = make(tmp_path / "in.csv", 20_000_000)
    first = start(source, tmp_path / "out", "0.00005")
    wait_for_rows(first, 64)
    assert "another job is writing" in str(outcome(start(source, tmp_path / "out"))["cause"])
    assert outcome(first)["rows_ok"] == sum(1 for _ in source.open()) - 1


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_limit_on_file_sizes(tmp_path: Path, start: Start, output: str) -> None:
    source = make(tmp_path / "in.csv", 3_000_000)
    said = outcome(start(source, tmp_path / output, limit=10_000))
    assert said["code"] == "OUTPUT_REFUSED"
    assert "File too large" in str(said["cause"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_full_disk(tmp_path: Path, tiny_disk: Path, start: Start, output: str) -> None:
    source = tmp_path / "in.csv"
    # random text, so that Parquet cannot fold it away
    source.write_text("text\n" + "".join(f"{os.urandom(500).hex()}\n" for _ in range(4000)))
    said = outcome(start(source, tiny_disk / output))
    assert said["code"] == "OUTPUT_REFUSED"
    assert "No space left" in str(said["cause"])
    assert "free some space" in str(said["remedy"])
    assert not list(tiny_disk.iterdir())


def test_a_read_only_disk(tmp_path: Path, tiny_disk: Path, start: Start) -> None:
    source = make(tmp_path / "in.csv", 1)
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    said = outcome(start(source, tiny_disk / "out.csv"))
    assert said["code"] == "OUTPUT_REFUSED"
    assert "Read-only" in str(said["cause"])


@pytest.mark.slow
@pytest.mark.parametrize("output", ["out", "out.parquet"])
def test_memory_does_not_grow_with_the_input(tmp_path: Path, start: Start, output: str) -> None:
    peaks = []
    for size in (20_000_000, 200_000_000):
        source = make(tmp_path / "in.csv", size)
        report = outcome(start(source, tmp_path / f"{size}-{output}"))
        assert report["rows_ok"] == report["rows_in"]
        peaks.append(float(str(report["peak"])))
    small, large = peaks
    assert large < small + 60
    assert large < 400
