"""Commands that are interrupted at one of their operations, such as the creation of a file."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.forked import forked

OPERATIONS = {
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate", "os.chmod", "os.fork", "os.kill"),
    *("shutil.copytree", "shutil.rmtree", "tempfile.mkdtemp", "tempfile.mkstemp", "fcntl.flock", "sqlite3.connect"),
    *("socket.bind", "socket.connect", "subprocess.Popen"),
}
"""Python's audit events of what an interruption may leave half done; in addition, files opened for writing."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def run_interrupted(
    words: Sequence[str | Path],
    out: Path,
    env: Mapping[str, str] | None = None,
    *,
    at: int | None = None,
    number: signal.Signals = signal.SIGKILL,
) -> tuple[int, int]:
    """Run `likewise WORDS`, which gets the signal before its operation `at`.

    Its exit code, and the number of its operations, 0 if it was killed.  It prints to `out`.
    """
    count = out.with_suffix(".count")
    count.unlink(missing_ok=True)
    process = forked(_command, [*map(str, words)], at, int(number), str(count), out=out, env=env)
    process.join(120)
    assert process.exitcode is not None, f"still running: {out.read_text()}"
    return process.exitcode, int(count.read_text()) if count.exists() else 0


def moments(operations: int, wanted: int) -> Iterator[int]:
    """`wanted` operations, evenly spread."""
    assert operations >= wanted
    for each in range(wanted):
        yield int((each + 0.5) * operations / wanted)


def _command(words: list[str], at: int | None, number: int, count: str) -> None:
    from likewise.cli import main

    seen, done = 0, False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if done:
            return
        if event in OPERATIONS or (event == "open" and isinstance(arguments[0], str) and arguments[2] & WRITES):
            seen += 1
            if seen - 1 == at:
                os.kill(os.getpid(), number)

    sys.argv = ["likewise", *words]
    sys.addaudithook(watch)
    try:
        main()
    finally:
        done = True
        Path(count).write_text(str(seen))
