"""The part of a job's staging folder that workers use: the chunks of its input, and the results of scored chunks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from likewise.batch import quarantine
from likewise.batch.distributed import blob
from likewise.batch.journal import ChunkCounts
from likewise.batch.layout import sync_folder
from likewise.batch.scored import Scored
from likewise.batch.staging import SNAPSHOT
from likewise.core.errors import OutputRefused
from likewise.core.private_files import open_file, write_private


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

    def snapshot(self) -> Sequence[ChunkFile] | None:
        """The chunks in the input's order; None if the input has not been cut into chunks yet."""
        path = self.folder / SNAPSHOT
        try:
            with open_file(path, "rb") as stream:
                value = json.load(stream)
        except FileNotFoundError:
            for folder in (self.chunks, self.scored):
                folder.mkdir(exist_ok=True)
            return None
        except ValueError as error:
            raise OutputRefused(f"{path} is damaged: {error}", remedy="use --restart") from error
        return list(_chunk_files(value["parts"], bool(value["numbered_on"])))

    def keep_snapshot(self, parts: Sequence[Mapping[str, Any]], *, numbered_on: bool) -> Sequence[ChunkFile]:
        """Store the tasks' results for their parts. numbered_on: rows are numbered across parts, not within each."""
        ordered = sorted(parts, key=lambda part: int(part["part"]))
        for part in ordered:
            sync_folder(self.chunks / part["folder"])
        sync_folder(self.chunks)
        write_private(self.folder / SNAPSHOT, json.dumps({"parts": ordered, "numbered_on": numbered_on}))
        with open_file(self.folder / SNAPSHOT, "rb") as stream:
            os.fsync(stream.fileno())
        sync_folder(self.folder)
        return list(_chunk_files(ordered, numbered_on))

    def save(self, name: str, scored: Scored) -> None:
        """Write the results of the chunk `name`."""
        path = self.scored / name
        path.parent.mkdir(exist_ok=True)
        blob.write(path, asdict(scored.counts), scored.data, b"".join(map(quarantine.line, scored.entries)))

    def counts(self, name: str) -> ChunkCounts | None:
        """The counts of the chunk `name`; None if it has no results."""
        header = blob.header(self.scored / name)
        return None if header is None else _counts(header)

    def load(self, chunk: ChunkFile) -> Scored:
        """The results of a chunk; OSError if they cannot be read, OutputRefused if they do not have all of its rows.

        Corrupt ones are deleted, so that the next run scores the chunk again.
        """
        path = self.scored / chunk.name
        try:
            header, (data, bad) = blob.read(path)
        except blob.CorruptError:
            path.unlink(missing_ok=True)
            raise
        counts, entries = _counts(header), [json.loads(line) for line in bad.splitlines()]
        if counts.rows != chunk.rows or counts.ok + len(entries) != chunk.rows:
            raise OutputRefused(
                f"the chunk {chunk.name} has {chunk.rows} rows, but its result has {counts.ok} predictions and "
                f"{len(entries)} quarantined rows; no output was written",
                remedy="use --restart, and report this as a bug",
            )
        return Scored(counts, data, entries)


def _counts(header: Mapping[str, Any]) -> ChunkCounts:
    return ChunkCounts(**{name: value for name, value in header.items() if name != blob.CHECK})


def _chunk_files(parts: Sequence[Mapping[str, Any]], numbered_on: bool) -> Iterator[ChunkFile]:
    preceding = 0
    for part in parts:
        for number, rows in enumerate(part["rows"]):
            yield ChunkFile(f"{part['folder']}/{number:06d}", rows, preceding if numbered_on else 0)
        preceding += sum(part["rows"])
