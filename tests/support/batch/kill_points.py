"""Jobs that kill themselves at a change of a file, as by SIGKILL: no `except` or `finally` runs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.support.batch.in_process import InProcess, run_on
from tests.support.batch.scoring import run_job, texts, upper, write

import likewise.batch.sinks
from likewise.core.errors import OutputRefused
from likewise.core.items import Row

CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
KILLED = 9  # exit code
PART_BYTES = 900  # so that a folder gets several parts
ROWS, WINDOW = 70, 16
LAST = 12  # changes that publish an output

Job = Callable[[Path, Path, bool], object]
"""Runs a job: source, output, whether `restart` is set."""


def some_fail(row: Row) -> object:
    if "bad" in str(row.get("text")):
        raise ValueError(row.get("text"))
    return upper(row)


def local(source: Path, output: Path, restart: bool) -> None:
    run_job(source, output, some_fail, window=WINDOW, restart=restart)


def on_workers(source: Path, output: Path, restart: bool) -> None:
    run_on(InProcess(some_fail, seed=5), source, output, restart=restart)


def check(folder: Path, job: Job, name: str, replaces: bool, every: int) -> None:
    """Kill the job before every `every`th change, and the last ones; each time, run it again and compare its files.

    replaces: there is an output of another job. Its process must not have started threads.
    """
    likewise.batch.sinks.PART_BYTES = PART_BYTES
    suffix = name.rpartition(".")[2]
    source = write(folder / f"in.{suffix}", texts(f"text {n}{' bad' * (n % 9 == 5)}" for n in range(ROWS)))
    other = write(folder / f"other.{suffix}", texts("abc"))
    whole, old = folder / "whole", folder / "old"
    for path, rows in ((whole, source), (old, other)):
        path.mkdir()
        assert in_fork(job, rows, path / name, False) == 0
    if not replaces:
        shutil.rmtree(old)
        old.mkdir()
    expected, before = files(whole), files(old)

    def run_again(current: Path) -> None:
        try:
            job(source, current / name, False)
        except OutputRefused:  # there is an output, because the job was killed before its start or after its end
            assert files(current) in (expected, before), sorted(files(current))
            job(source, current / name, True)

    uninterrupted = shutil.copytree(old, folder / "uninterrupted")
    assert in_fork(run_until, 0, job, source, uninterrupted / name) == 0
    assert files(uninterrupted) == expected
    changes = int(source.with_suffix(".changes").read_text())
    assert changes > 40
    for number in sorted({*range(0, changes, every), *range(changes - LAST, changes)}):
        current = shutil.copytree(old, folder / str(number))
        assert in_fork(run_until, number + 1, job, source, current / name) == KILLED
        assert in_fork(run_again, current) == 0, number
        assert files(current) == expected, number
        shutil.rmtree(current)


def run_until(number: int, job: Job, source: Path, output: Path) -> None:
    """Run the job with `restart`; exit before it changes, creates or syncs a file for the `number`th time.

    If it does so less often, the number of times is in a file next to the source.
    """
    left = number

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os._exit(KILLED)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            count()

    fsync = os.fsync

    def counted(descriptor: int) -> None:
        count()
        fsync(descriptor)

    os.fsync = counted
    sys.addaudithook(hook)
    job(source, output, True)
    source.with_suffix(".changes").write_text(str(number - left))


def in_fork(function: Callable[..., object], *arguments: object) -> int:
    """The exit code of a forked process that calls the function: 1 if it raises."""
    if (pid := os.fork()) == 0:
        code = 1
        try:
            function(*arguments)
            code = 0
        finally:
            if code:
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def files(folder: Path) -> dict[str, object]:
    """All files below `folder`; of reports the counts, which do not depend on the run."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name, data = str(path.relative_to(folder)), path.read_bytes()
            report = json.loads(data) if path.suffix == ".json" else {}
            counts = {key: report[key] for key in ("rows_in", "rows_ok", "reasons") if key in report}
            found[name] = counts or data
    return found
