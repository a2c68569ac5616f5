"""A job's staging folder: what it is about, which chunks its input was cut into, and which of them are scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likewise.batch.journal import check_same_job
from likewise.batch.layout import remove
from likewise.core.errors import OutputRefused
from likewise.targets.spark import blob

FINGERPRINT = "spark.json"
SNAPSHOT = "snapshot.json"


@dataclass(frozen=True, slots=True)
class ChunkFile:
    """One chunk of the input. name: below `chunks` and `scored`. ahead: what is added to its row numbers."""

    name: str
    rows: int
    ahead: int


class Staging:
    """The folder beside the output where executors and driver meet; both see it under the same name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chunks = folder / "chunks"
        self.scored = folder / "scored"
        self.output = folder / "output"
        self.quarantine = folder / "quarantine.jsonl"

    def resume(self, fingerprint: Mapping[str, object], restart: bool) -> bool:
        """Whether a job with this fingerprint was stopped here; OutputRefused where another one was.

        With `restart`, or where nothing was, everything in the folder is made anew.
        """
        before = _json(self.folder / FINGERPRINT)
        if before is not None and not restart:
            check_same_job(before["job"], fingerprint)
            return True
        if not restart and any(self.folder.iterdir()):
            raise OutputRefused(
                f"{self.folder} holds what another runner has done of this job",
                remedy="--restart, or go on with that runner",
            )
        for entry in list(self.folder.iterdir()):
            remove(entry)
        for folder in (self.chunks, self.scored):
            folder.mkdir()
        _write(self.folder / FINGERPRINT, {"job": fingerprint, "replaces": restart, "seconds": 0.0})
        return False

    @property
    def replaces(self) -> bool:
        """Whether the job that was stopped here was told to replace an output."""
        return bool((_json(self.folder / FINGERPRINT) or {}).get("replaces"))

    @property
    def seconds(self) -> float:
        """What earlier runs took."""
        return float((_json(self.folder / FINGERPRINT) or {}).get("seconds", 0.0))

    def add_seconds(self, seconds: float) -> None:
        """Remember what this run took."""
        before = _json(self.folder / FINGERPRINT)
        if before is not None:
            _write(self.folder / FINGERPRINT, {**before, "seconds": before["seconds"] + seconds})

    def snapshot(self) -> list[ChunkFile] | None:
        """The chunks in the input's order; None where it has not been cut into chunks yet."""
        parts = _json(self.folder / SNAPSHOT)
        return None if parts is None else list(_chunk_files(parts["parts"], bool(parts["numbered_on"])))

    def keep_snapshot(self, parts: list[Mapping[str, Any]], *, numbered_on: bool) -> None:
        """Remember what the tasks say of their parts. numbered_on: rows are counted over the parts and not in each."""
        ordered = sorted(parts, key=lambda part: int(part["part"]))
        _write(self.folder / SNAPSHOT, {"parts": ordered, "numbered_on": numbered_on})

    def result(self, chunk: ChunkFile) -> dict[str, Any] | None:
        """What was counted in a chunk; None where it is not scored."""
        return blob.header(self.scored / chunk.name)


def _chunk_files(parts: list[dict[str, Any]], numbered_on: bool) -> Iterator[ChunkFile]:
    before = 0
    for part in parts:
        for number, rows in enumerate(part["rows"]):
            yield ChunkFile(f"{part['folder']}/{number:06d}", rows, before if numbered_on else 0)
        before += sum(part["rows"])


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OutputRefused(f"{path} is damaged: {error}", remedy="--restart") from error
    return found


def _write(path: Path, value: Mapping[str, object]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(value))
    fresh.replace(path)
