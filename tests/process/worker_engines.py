"""Engines for the tests of workers: an item's text determines what the engine does."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE, until

from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import EngineUnavailable, RowRefused
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok, Result

SPEC = EngineSpec("tricks", "none", row_wise=True, thread_safe=False, pure=False, budget=64)


class Strange:
    """A class that the server process does not know."""


class Own(str):
    """A payload of an engine-specific class."""


class Tricks:
    """Runs texts of the form `VERB ARGUMENT` and returns the result; returns any other text unchanged."""

    def __init__(self, closed: Path | None = None) -> None:
        self.spec = SPEC
        self._closed = closed

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        print("noise of a model's tokenizer")
        return [self._prepare(str(item.values[0])) for item in items if isinstance(item, Row)]

    def run(self, work: Sequence[Work]) -> list[Result]:
        print("noise of a model")
        return [Ok(self._do(*str(each.payload).partition(" ")[::2])) for each in work]

    def close(self) -> None:
        if self._closed is not None:
            (self._closed / str(os.getpid())).touch()

    def _prepare(self, text: str) -> Work | Failed:
        if text == "refuse":
            return Failed(RowRefused("no such row", remedy="send another"))
        if text == "die-early":
            os._exit(4)
        payload: object = {"lambda": lambda: text, "own": Own("own payload")}.get(text, text)
        return Work(text, len(text), payload)

    def _do(self, verb: str, argument: str) -> object:
        if verb in VERBS:
            return VERBS[verb](argument)
        if verb in RAISED:
            raise RAISED[verb]
        return f"{verb} {argument}" if argument else verb


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def mark(folder: str) -> None:
    """Create a file named after this process's id, to show that it has reached this point."""
    (Path(folder) / str(os.getpid())).touch()


# --- verbs -----------------------------------------------------------------------------------------------------------


def fail(why: str) -> None:
    raise ValueError(why)


def die(code: str) -> None:
    os._exit(int(code))


def meet(folder: str) -> str:
    """Returns when two processes are in this function."""
    mark(folder)
    until(lambda: len(list(Path(folder).iterdir())) >= 2)
    return "both"


def wait(folder: str) -> str:
    """Returns when the file `go` exists."""
    mark(folder)
    until((Path(folder) / "go").exists)
    return "released"


def spin(folder: str) -> int:
    """Holds the GIL for weeks."""
    mark(folder)
    return sum(range(10**15))


def leave_a_child(session: str) -> int:
    """Fork a long-running process that inherits all open files; returns its id. `own`: in its own session."""
    child = os.fork()
    if child == 0:
        if session == "own":
            os.setsid()
        time.sleep(PATIENCE)
        os._exit(0)
    until(lambda: session != "own" or os.getsid(child) == child)
    return child


def keep(folder: str) -> str:
    """Write a temporary file, which is not removed, and its path to a file in `folder`."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"left behind")
    (Path(folder) / "path").write_text(file.name)
    return file.name


VERBS: dict[str, Callable[[str], object]] = {
    "pid": lambda _: os.getpid(),
    "env": os.environ.get,
    "strange": lambda _: Strange(),
    "deep": lambda _: nested(100_000),
    "raise": fail,
    "exit": sys.exit,
    "die": die,
    "segfault": lambda _: ctypes.string_at(0),
    "meet": meet,
    "wait": wait,
    "spin": spin,
    "leave": leave_a_child,
    "keep": keep,
}


class Rude(Exception):
    def __str__(self) -> str:
        raise KeyError("no message")


class PanicException(BaseException):
    """As a Rust extension raises it."""


RAISED: dict[str, type[BaseException]] = {
    "panic": PanicException,
    "interrupt": KeyboardInterrupt,
    "memory": MemoryError,
    "recursion": RecursionError,
    "rude": Rude,
    "generator": GeneratorExit,
}


# --- openers ---------------------------------------------------------------------------------------------------------


def tricks(closed: Path | None = None) -> Tricks:
    return Tricks(closed)


def unavailable() -> Tricks:
    raise EngineUnavailable("no such engine", remedy="name another")


def broken() -> Tricks:
    raise ZeroDivisionError("by a layer")


def exiting() -> Tricks:
    sys.exit("not today")


def dying() -> Tricks:
    os._exit(7)


def hanging(folder: Path) -> Tricks:
    mark(str(folder))
    while True:
        time.sleep(1)


def good_until(flag: Path) -> Tricks:
    """Loads unless the file `flag` exists."""
    if flag.exists():
        os._exit(9)
    return Tricks()


def hanging_once(flag: Path, folder: Path) -> Tricks:
    """Loads unless the file `flag` exists; otherwise hangs while loading."""
    return hanging(folder) if flag.exists() else Tricks()


class NeverCloses(Tricks):
    def close(self) -> None:
        time.sleep(PATIENCE)


def never_closing() -> Tricks:
    return NeverCloses()
