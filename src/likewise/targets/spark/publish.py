"""Scored chunks put together as the output: in the input's order, counted, and under its final name only when whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from likewise.batch import quarantine
from likewise.batch.formats import SealedWriter, Source, Writer, load
from likewise.batch.job import Report
from likewise.batch.journal import sync
from likewise.batch.place import MANIFEST, QUARANTINE, Layout, remove, sync_folder
from likewise.batch.sinks import PART_BYTES
from likewise.core.errors import OutputRefused
from likewise.core.signature import Signature
from likewise.targets.spark import blob
from likewise.targets.spark.plan import ChunkFile, Staging
from likewise.targets.spark.tasks import Given


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
            with path.with_suffix(".new").open("wb") as sealed:
                self._writer.seal(stream, sealed)
                sync(sealed)
            path.with_suffix(".new").replace(path)
        else:
            sync(stream)
        stream.close()
        self._stream = None


def put_together(
    staging: Staging, chunks: Sequence[ChunkFile], source: Given, signature: Signature, layout: Layout, suffix: str
) -> tuple[Parts, list[Mapping[str, Any]]]:
    """The part files and the quarantine in `staging.output`, and what was counted in each chunk.

    OutputRefused where rows are missing: more or less than the input had.
    """
    remove(staging.output)
    staging.output.mkdir()
    writer: Writer = load(suffix).open_writer(cast(Source, source), signature.outputs)
    parts = Parts(staging.output, writer, suffix, layout.single)
    counted: list[Mapping[str, Any]] = []
    lines = staging.folder / "quarantine.jsonl"
    with lines.open("wb") as refused:
        for chunk in chunks:
            counts, (rows, bad) = blob.read(staging.scored / chunk.name)
            _require_whole(chunk, counts, bad)
            parts.add(rows)
            refused.write(bad)
            counted.append(counts)
    parts.close()
    with (staging.output / QUARANTINE).open("wb") as stream:
        quarantine.write_parquet(lines, stream)
        sync(stream)
    return parts, counted


def publish(staging: Staging, layout: Layout, parts: Parts, report: Report) -> None:
    """The manifest last, then everything under its final name."""
    with (staging.output / MANIFEST).open("wb") as stream:
        stream.write(json.dumps(report.as_dict(), indent=2).encode() + b"\n")
        sync(stream)
    sync_folder(staging.output)
    layout.publish(staging.output, parts.name(0))


def _require_whole(chunk: ChunkFile, counts: Mapping[str, Any], bad: bytes) -> None:
    if counts["rows"] != chunk.rows or counts["ok"] + bad.count(b"\n") != chunk.rows:
        raise OutputRefused(
            f"the chunk {chunk.name} has {chunk.rows} rows, and {counts['ok']} answered and {bad.count(bytes([10]))} "
            "quarantined ones were found; nothing was put in place",
            remedy="--restart, and report this",
        )
