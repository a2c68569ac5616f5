"""What of a job is done: a line a chunk, written when the chunk's rows are on the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from likewise.core.errors import OutputRefused

NAME = "journal.jsonl"
NAMES = {  # of what a fingerprint holds, for people
    "likewise": "the version of Likewise",
    "bundle": "the model",
    "engine": "the engine",
    "engine_digest": "what the engine was compiled from",
    "format": "the output's format",
    "input_format": "the input's format",
    "column": "--column",
    "window": "--window",
    "budget": "--budget",
    "input": "the input",
}


@dataclass(frozen=True)
class Counts:
    """What is done, from the job's beginning. answered: distinct rows with an answer. seconds: of all runs."""

    rows: int = 0
    ok: int = 0
    duplicates: int = 0
    tokens: int = 0
    answered: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class JournalState(Counts):
    """A line of the journal.

    chunks: finished. part, length: the part file that is being written, and its bytes; -1 before the first.
    quarantine, answers: bytes of their files; generation: which file of answers.
    """

    chunks: int = 0
    part: int = -1
    length: int = 0
    quarantine: int = 0
    generation: int = 0
    answers: int = 0


class Journal:
    """The journal of a staging folder: a first line with the job's fingerprint, then a `State` a chunk.

    A last line that is torn, as a killed job leaves it, is dropped.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._stream: BinaryIO | None = None
        self.state = JournalState()

    def resume(self, fingerprint: Mapping[str, object]) -> bool:
        """Whether there is a job to go on with; OutputRefused where it is not the one with this fingerprint."""
        lines, end = _read(self._path)
        if not lines:
            return False
        refuse_other(lines[0].get("fingerprint") or {}, fingerprint)
        if len(lines) > 1:
            self.state = JournalState(**lines[-1])
        self._stream = self._path.open("r+b")
        self._stream.truncate(end)
        self._stream.seek(end)
        return True

    def begin(self, fingerprint: Mapping[str, object], replaces: bool) -> None:
        """A new journal. replaces: the job was told to replace an output."""
        self._stream = self._path.open("wb")
        self._append({"fingerprint": fingerprint, "replaces": replaces})

    def add(self, state: JournalState) -> None:
        """One more chunk is done."""
        self._append(asdict(state))
        self.state = state

    def close(self) -> None:
        """The file."""
        if self._stream:
            with suppress(OSError):  # what could not be written has been told
                self._stream.close()

    def _append(self, entry: Mapping[str, object]) -> None:
        assert self._stream  # noqa: S101  resume or begin came first
        self._stream.write(json.dumps(entry).encode() + b"\n")
        sync(self._stream)


def replaces(folder: Path) -> bool:
    """Whether the job that was stopped in this folder was told to replace an output."""
    lines, _ = _read(folder / NAME)
    return bool(lines) and lines[0].get("replaces") is True


def rows_done(folder: Path) -> int:
    """Rows that the job that was stopped in this folder has done."""
    lines, _ = _read(folder / NAME)
    return int(lines[-1].get("rows", 0)) if lines else 0


def sync(stream: BinaryIO) -> None:
    """What was written, on the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The first and the last whole line, and the bytes up to its end."""
    found: list[dict[str, Any]] = []
    end = 0
    if path.exists():
        with path.open("rb") as stream:
            for line in stream:
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n") or not isinstance(entry, dict):
                    break
                found[1:] = [entry] if found else []
                found = found or [entry]
                end += len(line)
    return found, end


def refuse_other(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """OutputRefused unless the job that was stopped is the one that runs now, by their fingerprints."""
    if other := _difference(before, now):
        raise OutputRefused(
            f"the job that was stopped is another one: {other}",
            remedy="--restart to drop what it has done, or the same model, input and options as before to go on",
        )


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """A sentence on the first thing that differs; None where nothing does."""
    now = json.loads(json.dumps(now))
    for name in NAMES:
        was, is_now = before.get(name), now.get(name)
        if was != is_now:
            if name == "input":
                return _other_input(was or {}, is_now or {})
            return f"{NAMES[name]} was {_shown(was)} and is {_shown(is_now)}"
    return None


def _other_input(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    name = next(name for name in [*was, *now] if was.get(name) != now.get(name)) if set(was) | set(now) else ""
    if name not in now:
        return f"its input had {name}, this one has not"
    if name not in was:
        return f"its input had no {name}, this one has"
    return f"{name} has changed since: it was {was[name]} and is {now[name]}"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
