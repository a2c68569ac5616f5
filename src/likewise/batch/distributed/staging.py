"""A job's staging folder: the job's fingerprint, the chunks of its input, and the results of scored chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likewise.batch.distributed import blob
from likewise.batch.journal import check_same_job
from likewise.batch.layout import remove
from likewise.core.errors import OutputRefused
from likewise.core.private_files import open_file, write_private

FINGERPRINT = "distributed.json"
SNAPSHOT = "snapshot.json"


@dataclass(frozen=True, slots=True)
class ChunkFile:
    """One chunk of the input. name: path below `chunks` and `scored`. row_offset: added to its row numbers."""

    name: str
    rows: int
    row_offset: int


class Staging:
    """The folder next to the output that workers and driver share; both see it under the same path.

    It is private to the driver's user, whose `Claim` creates or checks it first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chunks = folder / "chunks"
        self.scored = folder / "scored"
        self.output = folder / "output"
        self.quarantine = folder / "quarantine.jsonl"

    def resume(self, fingerprint: Mapping[str, object], restart: bool) -> bool:
        """Whether the folder contains an interrupted job with this fingerprint; OutputRefused if it has another job.

        With `restart`, or without an interrupted job, the folder is created again.
        """
        record = _json(self.folder / FINGERPRINT)
        if record is not None and not restart:
            check_same_job(record["job"], fingerprint)
            return True
        if not restart and any(self.folder.iterdir()):
            raise OutputRefused(
                f"{self.folder} contains partial results of another runner",
                remedy="use --restart, or resume with that runner",
            )
        for entry in list(self.folder.iterdir()):
            remove(entry)
        for folder in (self.chunks, self.scored):
            folder.mkdir()
        self._keep(FINGERPRINT, {"job": fingerprint, "replaces": restart, "seconds": 0.0})
        return False

    @property
    def replaces(self) -> bool:
        """Whether the interrupted job was started with the option to replace an existing output."""
        return bool((_json(self.folder / FINGERPRINT) or {}).get("replaces"))

    @property
    def seconds(self) -> float:
        """The duration of earlier runs of this job."""
        return float((_json(self.folder / FINGERPRINT) or {}).get("seconds", 0.0))

    def add_seconds(self, seconds: float) -> None:
        """Add the duration of this run to that of earlier runs."""
        record = _json(self.folder / FINGERPRINT)
        if record is not None:
            self._keep(FINGERPRINT, {**record, "seconds": record["seconds"] + seconds})

    def snapshot(self) -> list[ChunkFile] | None:
        """The chunks in the input's order; None if the input has not been cut into chunks yet."""
        parts = _json(self.folder / SNAPSHOT)
        return None if parts is None else list(_chunk_files(parts["parts"], bool(parts["numbered_on"])))

    def keep_snapshot(self, parts: list[Mapping[str, Any]], *, numbered_on: bool) -> None:
        """Store the tasks' results for their parts. numbered_on: rows are numbered across parts, not within each."""
        ordered = sorted(parts, key=lambda part: int(part["part"]))
        self._keep(SNAPSHOT, {"parts": ordered, "numbered_on": numbered_on})

    def result(self, chunk: ChunkFile) -> dict[str, Any] | None:
        """The counts of a chunk; None if it is not scored."""
        return blob.header(self.scored / chunk.name)

    def _keep(self, name: str, value: Mapping[str, object]) -> None:
        write_private(self.folder / name, json.dumps(value))


def _chunk_files(parts: list[dict[str, Any]], numbered_on: bool) -> Iterator[ChunkFile]:
    preceding = 0
    for part in parts:
        for number, rows in enumerate(part["rows"]):
            yield ChunkFile(f"{part['folder']}/{number:06d}", rows, preceding if numbered_on else 0)
        preceding += sum(part["rows"])


def _json(path: Path) -> dict[str, Any] | None:
    try:
        with open_file(path, "rb") as stream:
            value: dict[str, Any] = json.load(stream)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OutputRefused(f"{path} is damaged: {error}", remedy="use --restart") from error
    return value
