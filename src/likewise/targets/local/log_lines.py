"""Reads the log of a local deployment, and follows it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from likewise.targets.base import LOG_ENDS

POLL_S = 0.1


def log_lines(log: Path, lines: int, follow: bool) -> Iterator[str]:
    """The last lines of `log`, and of `log.1` before it if there are too few; see `likewise.targets.base.Logs`."""
    tail, position = _tail(log, lines)
    missing = lines - len(tail)
    yield from [*(_tail(_former(log), missing)[0] if missing else ()), *tail]
    if follow:
        yield from _followed(log, position)


def _tail(path: Path, lines: int) -> tuple[list[str], int]:
    """The last complete lines of a file, and the position after them; nothing if it does not exist."""
    try:
        with path.open("rb") as file:
            kept, position = deque[bytes](maxlen=lines), 0
            for line in file:
                if line.endswith(b"\n"):
                    kept.append(line)
                    position += len(line)
    except FileNotFoundError:
        return [], 0
    return [_text(line) for line in kept], position


def _followed(log: Path, position: int) -> Iterator[str]:
    """The complete lines after `position`, as they are written, until the file is deleted."""
    while True:
        try:
            if log.stat().st_size < position:  # the supervisor has moved its content to `log.1`
                yield from _after(_former(log), position)[0]
                position = 0
            new, position = _after(log, position)
        except FileNotFoundError:
            yield LOG_ENDS
            return
        yield from new
        if not new:
            time.sleep(POLL_S)


def _after(path: Path, position: int) -> tuple[list[str], int]:
    """The complete lines after `position`, and the position after them."""
    with path.open("rb") as file:
        file.seek(position)
        data = file.read()
    complete = data[: data.rfind(b"\n") + 1]
    return [_text(line) for line in complete.splitlines(keepends=True)], position + len(complete)


def _former(log: Path) -> Path:
    return log.with_name("log.1")


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r\n")
