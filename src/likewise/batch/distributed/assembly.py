"""Assembly of scored chunks into the output: in the input's order, with counts, renamed only when complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from likewise.batch.distributed import blob
from likewise.batch.distributed.input_columns import InputColumns
from likewise.batch.distributed.staging import ChunkFile, Staging
from likewise.batch.formats import RowSource, SealedWriter, Writer, load
from likewise.batch.journal import sync
from likewise.batch.layout import Layout, remove
from likewise.batch.sinks import PART_BYTES, seal
from likewise.core.errors import OutputRefused
from likewise.core.private_files import open_file
from likewise.core.signature import Signature


class Parts:
    """The output's part files, to which scored chunks are appended."""

    def __init__(self, folder: Path, writer: Writer, suffix: str, single: bool) -> None:
        self._folder = folder
        self._writer = writer
        self._suffix = suffix
        self._single = single
        self._stream: BinaryIO | None = None
        self.count = 0

    def add(self, rows: bytes) -> None:
        """Append rows in the output's format."""
        if not rows:
            return
        stream = self._stream or self._open_part()
        stream.write(rows)
        if not self._single and stream.tell() >= PART_BYTES:
            self._close_part()

    def close(self) -> None:
        """Complete the last part; there is one even if no row has a prediction."""
        if self.count == 0:
            self._open_part()
        self._close_part()

    @property
    def prediction_type(self) -> str | None:
        """The name of the predictions' type, if the output's format has types."""
        return self._writer.prediction_type if isinstance(self._writer, SealedWriter) else None

    def name(self, number: int) -> str:
        """The name of the part file with this number."""
        return f"part-{number:05d}.{self._suffix}"

    def _open_part(self) -> BinaryIO:
        self._stream = open_file(self._folder / self.name(self.count), "w+b")
        self.count += 1
        self._writer.begin(self._stream)
        return self._stream

    def _close_part(self) -> None:
        if (stream := self._stream) is None:
            return
        path = self._folder / self.name(self.count - 1)
        if isinstance(self._writer, SealedWriter):
            seal(self._writer, stream, path)
        else:
            sync(stream)
        stream.close()
        self._stream = None


def assemble(
    staging: Staging,
    chunks: Sequence[ChunkFile],
    source: InputColumns,
    signature: Signature,
    layout: Layout,
    suffix: str,
) -> tuple[Parts, list[Mapping[str, Any]]]:
    """Write the part files to `staging.output` and the quarantine's lines; the parts, and the counts of each chunk.

    OutputRefused if the number of rows differs from the input's.
    """
    remove(staging.output)
    staging.output.mkdir()
    writer: Writer = load(suffix).open_writer(cast(RowSource, source), signature.outputs)
    if isinstance(writer, SealedWriter):
        for chunk in chunks:  # before the first part is sealed
            writer.include((staging.result(chunk) or {}).get("kind"))
    parts = Parts(staging.output, writer, suffix, layout.single)
    counted: list[Mapping[str, Any]] = []
    with open_file(staging.quarantine, "wb") as refused:
        for chunk in chunks:
            counts, (rows, bad) = blob.read(staging.scored / chunk.name)
            _require_complete(chunk, counts, bad)
            parts.add(rows)
            refused.write(bad)
            counted.append(counts)
    parts.close()
    return parts, counted


def _require_complete(chunk: ChunkFile, counts: Mapping[str, Any], bad: bytes) -> None:
    if counts["rows"] != chunk.rows or counts["ok"] + bad.count(b"\n") != chunk.rows:
        raise OutputRefused(
            f"the chunk {chunk.name} has {chunk.rows} rows, but its result has {counts['ok']} predictions and "
            f"{bad.count(bytes([10]))} quarantined rows; no output was written",
            remedy="use --restart, and report this as a bug",
        )
