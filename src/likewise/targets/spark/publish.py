"""Scored chunks put together as the output: in the input's order, counted, and under its final name only when whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from likewise.batch.formats import RowSource, SealedWriter, Writer, load
from likewise.batch.journal import sync
from likewise.batch.layout import Layout, remove
from likewise.batch.sinks import PART_BYTES, seal
from likewise.core.errors import OutputRefused
from likewise.core.signature import Signature
from likewise.targets.spark import blob
from likewise.targets.spark.plan import ChunkFile, Staging
from likewise.targets.spark.windows import Given


class Parts:
    """Part files that grow by a scored chunk at a time."""

    def __init__(self, folder: Path, writer: Writer, suffix: str, single: bool) -> None:
        self._folder = folder
        self._writer = writer
        self._suffix = suffix
        self._single = single
        self._stream: BinaryIO | None = None
        self.count = 0

    def add(self, rows: bytes) -> None:
        """Rows as a writer wrote them."""
        if not rows:
            return
        stream = self._stream or self._begin()
        stream.write(rows)
        if not self._single and stream.tell() >= PART_BYTES:
            self._end()

    def close(self) -> None:
        """Complete the last part; there is one even where no row was answered."""
        if self.count == 0:
            self._begin()
        self._end()

    def name(self, number: int) -> str:
        """Of a part file."""
        return f"part-{number:05d}.{self._suffix}"

    def _begin(self) -> BinaryIO:
        self._stream = (self._folder / self.name(self.count)).open("w+b")
        self.count += 1
        self._writer.begin(self._stream)
        return self._stream

    def _end(self) -> None:
        if (stream := self._stream) is None:
            return
        path = self._folder / self.name(self.count - 1)
        if isinstance(self._writer, SealedWriter):
            seal(self._writer, stream, path)
        else:
            sync(stream)
        stream.close()
        self._stream = None


def put_together(
    staging: Staging, chunks: Sequence[ChunkFile], source: Given, signature: Signature, layout: Layout, suffix: str
) -> tuple[Parts, list[Mapping[str, Any]]]:
    """The part files in `staging.output`, the quarantine's lines, and what was counted in each chunk.

    OutputRefused where rows are missing: more or less than the input had.
    """
    remove(staging.output)
    staging.output.mkdir()
    writer: Writer = load(suffix).open_writer(cast(RowSource, source), signature.outputs)
    parts = Parts(staging.output, writer, suffix, layout.single)
    counted: list[Mapping[str, Any]] = []
    with staging.quarantine.open("wb") as refused:
        for chunk in chunks:
            counts, (rows, bad) = blob.read(staging.scored / chunk.name)
            _require_whole(chunk, counts, bad)
            parts.add(rows)
            refused.write(bad)
            counted.append(counts)
    parts.close()
    return parts, counted


def _require_whole(chunk: ChunkFile, counts: Mapping[str, Any], bad: bytes) -> None:
    if counts["rows"] != chunk.rows or counts["ok"] + bad.count(b"\n") != chunk.rows:
        raise OutputRefused(
            f"the chunk {chunk.name} has {chunk.rows} rows, and {counts['ok']} answered and {bad.count(bytes([10]))} "
            "quarantined ones were found; nothing was put in place",
            remedy="--restart, and report this",
        )
