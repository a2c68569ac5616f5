"""Reserves stdout for results, because a model may print, also from C libraries and child processes.

While it is reserved, only what is written to `stdout()` reaches it; whatever else is printed goes to stderr.
"""

from __future__ import annotations

import fcntl
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_reserved: TextIO | None = None
_original: TextIO | None = None  # what `sys.stdout` was; the same as `_reserved` if it is not a file of the process


def stdout() -> TextIO:
    """The stream for results: `sys.stdout`, or what it was when stdout was reserved."""
    return _reserved or sys.stdout


def stdout_of_child() -> int | None:
    """The `stdout` argument of `subprocess` for a child process whose output is a result."""
    return None if _reserved is None or _reserved is _original else _reserved.fileno()


def reserve_stdout() -> None:
    """Reserve stdout until `release_stdout`."""
    global _reserved, _original
    release_stdout()
    _original = sys.stdout
    if not isinstance(_original, io.TextIOWrapper) or _descriptor(_original) != 1:
        _reserved, sys.stdout = _original, sys.stderr
        return
    _original.reconfigure(line_buffering=True)  # keeps the order of what a model prints and logs; also flushes
    own = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)  # not 2, even if stderr is closed
    _reserved = os.fdopen(own, "w", 1, encoding=_original.encoding, errors=_original.errors)
    _redirect(2)


def release_stdout() -> None:
    """Undo `reserve_stdout`."""
    global _reserved, _original
    if _reserved is None or _original is None:
        return
    if _reserved is not _original:
        _original.flush()
        _redirect(_reserved.fileno())
        _reserved.close()
    elif sys.stdout is sys.stderr:  # else it has been replaced again
        sys.stdout = _original
    _reserved = _original = None


@contextmanager
def reserved_stdout() -> Iterator[None]:
    """Reserve stdout in this block."""
    reserve_stdout()
    try:
        yield
    finally:
        release_stdout()


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except OSError:
        return None


def _redirect(target: int) -> None:
    """Let what is written to file descriptor 1 go to the file of the descriptor `target`."""
    try:
        os.dup2(target, 1)
    except OSError:  # stderr is closed
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
