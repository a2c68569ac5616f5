"""The journal of a job: one line per completed chunk, written when the rows of the chunk are on the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Self

from likewise.batch import reasons
from likewise.batch.reasons import Reason
from likewise.core.errors import OutputRefused
from likewise.core.private_files import open_file

NAME = "journal.jsonl"
SUMS = ("rows", "ok", "duplicates", "tokens", "answered", "refused")
DESCRIPTIONS = {  # how error messages name the entries of a fingerprint
    "likewise": "the Likewise version",
    "bundle": "the model",
    "build": "the build of the bundle",
    "runner": "the runner",
    "engine": "the engine",
    "format": "the output's format",
    "input_format": "the input's format",
    "header": "--header",
    "column": "--column",
    "params": "--params",
    "window": "--window",
    "budget": "--budget",
    "input": "the input",
    "types": "the input's inferred types",
}


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """Counts of one chunk.

    rows: of the chunk. ok: those with a prediction. duplicates, tokens, answered: see `Scorer`. refused: distinct rows
    on which the model failed; failure: the error of the first of them. engine: its label. kind: what is known of the
    predictions' type, see `likewise.batch.formats.SealedWriter`.
    """

    rows: int
    ok: int
    duplicates: int = 0
    tokens: int = 0
    answered: int = 0
    refused: int = 0
    failure: Mapping[str, str] | None = None
    engine: str = ""
    kind: Any = None

    @property
    def traced(self) -> dict[str, int]:
        """Attributes of the chunk's span."""
        return {"rows": self.rows, "rows_ok": self.ok, "tokens": self.tokens}


@dataclass(frozen=True)
class JournalState:
    """A line of the journal: counts since the start of the job, as in `ChunkCounts`, and the lengths of files.

    engines: their labels. seconds: of all runs. reasons: why rows are quarantined, see `likewise.batch.reasons`.
    chunks: number completed. part: number of the part file being written, -1 before the first; length: its bytes.
    quarantine, answers: bytes of the quarantine and of the current result log; generation: number of that log.
    kind: what is known of the predictions' type, see `likewise.batch.formats.SealedWriter`.
    """

    rows: int = 0
    ok: int = 0
    duplicates: int = 0
    tokens: int = 0
    answered: int = 0
    refused: int = 0
    engines: Sequence[str] = ()
    seconds: float = 0.0
    reasons: Sequence[Reason] = ()
    chunks: int = 0
    part: int = -1
    length: int = 0
    quarantine: int = 0
    generation: int = 0
    answers: int = 0
    kind: Any = None

    def including(self, counts: ChunkCounts, entries: Iterable[Mapping[str, Any]], seconds: float) -> Self:
        """The state after one more chunk, with the same files.  entries: of the quarantine.  seconds: of all runs."""
        return replace(
            self,
            **{name: getattr(self, name) + getattr(counts, name) for name in SUMS},
            chunks=self.chunks + 1,
            engines=sorted({*self.engines, counts.engine}),
            seconds=seconds,
            reasons=reasons.add(self.reasons, entries),
        )


FIELDS = JournalState.__dataclass_fields__.keys()


class Journal:
    """The journal file of a staging folder: a first line with the job's fingerprint, then a `JournalState` per chunk.

    An incomplete last line, as a killed job may leave it, is dropped.  state: what the interrupted job has completed.
    replaces: whether it may replace an existing output.
    """

    def __init__(self, folder: Path, *, new: bool = False) -> None:
        """new: ignore an existing journal."""
        self._path = folder / NAME
        self._stream: BinaryIO | None = None
        self._lines, self._end = ([], 0) if new else _read(self._path)
        last = self._lines[-1] if self._lines else {}
        self.state = JournalState(**{name: last[name] for name in FIELDS & last.keys()})  # of any version
        self.replaces = bool(self._lines) and self._lines[0].get("replaces") is True

    @property
    def exists(self) -> bool:
        """Whether there is a job to resume."""
        return bool(self._lines)

    def resume(self, fingerprint: Mapping[str, object]) -> bool:
        """Open an existing journal; False if there is none. OutputRefused if its job has another fingerprint."""
        if not self._lines:
            return False
        check_same_job(self._lines[0].get("fingerprint") or {}, fingerprint)
        self._stream = open_file(self._path, "r+b")
        self._stream.truncate(self._end)
        self._stream.seek(self._end)
        return True

    def begin(self, fingerprint: Mapping[str, object], replaces: bool) -> None:
        """Start a new journal. replaces: whether the job may replace an existing output."""
        self._stream = open_file(self._path, "wb")
        self._append({"fingerprint": fingerprint, "replaces": replaces})

    def add(self, state: JournalState) -> None:
        """Record that one more chunk is complete."""
        self._append(asdict(state))
        self.state = state

    def close(self) -> None:
        """Close the file."""
        if self._stream:
            with suppress(OSError):  # a failed write has already been reported
                self._stream.close()

    def _append(self, entry: Mapping[str, object]) -> None:
        assert self._stream  # noqa: S101  resume or begin is called first
        self._stream.write(json.dumps(entry).encode() + b"\n")
        sync(self._stream)


def sync(stream: BinaryIO) -> None:
    """Flush the stream and write it to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The first and the last complete line (one entry if they are the same), and the bytes up to the latter's end."""
    lines: list[dict[str, Any]] = []
    end = 0
    with suppress(FileNotFoundError), open_file(path, "rb") as stream:
        for line in stream:
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or not isinstance(entry, dict):
                break
            lines[1:] = [entry] if lines else []
            lines = lines or [entry]
            end += len(line)
    return lines, end


def check_same_job(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """OutputRefused unless the interrupted job and this one have the same fingerprint."""
    if difference := _difference(before, now):
        raise OutputRefused(
            f"the interrupted job is a different one: {difference}",
            remedy="use the same model, input and options as before to resume it, or --restart to discard its results",
        )


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """A message about the first entry that differs; None if the fingerprints are equal."""
    now = json.loads(json.dumps(now))
    for name in DESCRIPTIONS:
        old, new = before.get(name), now.get(name)
        if old != new:
            if name == "input":
                return _input_difference(old or {}, new or {})
            return f"{DESCRIPTIONS[name]} was {_shown(old)} and is now {_shown(new)}"
    return None


def _input_difference(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """A message about the first file that differs. old, new: identities by file name."""
    name = next(name for name in [*old, *new] if old.get(name) != new.get(name)) if set(old) | set(new) else ""
    if name not in new:
        return f"its input included {name}, the input of this job does not"
    if name not in old:
        return f"its input did not include {name}, the input of this job does"
    return f"{name} has changed since: it was {old[name]} and is now {new[name]}"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
