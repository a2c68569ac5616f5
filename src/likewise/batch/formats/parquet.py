"""Parquet: typed columns, copied from input to output unchanged."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any, BinaryIO

from likewise.batch.files import BUFFER, InputFile
from likewise.batch.formats import CHUNK_BYTES, PREDICTIONS, Chunk, OneFile, RowSource, skipped_chunk
from likewise.batch.values import as_cell
from likewise.core.arrow import records_of
from likewise.core.arrow_types import without_views
from likewise.core.errors import InputInvalid, RowRefused
from likewise.core.extras import need
from likewise.core.isolation import isolate
from likewise.core.results import Ok, Result
from likewise.core.signature import Field

Outputs = tuple[Field, ...] | None

# MLflow type name: Arrow type name, and the Python type that it represents exactly
KINDS: dict[str, tuple[str, type]] = {
    "string": ("string", str),
    "long": ("int64", int),
    "integer": ("int32", int),
    "double": ("float64", float),
    "float": ("float32", float),
    "boolean": ("bool", bool),
    "binary": ("binary", bytes),
    "datetime": ("timestamp[us]", date),  # includes datetime, a subclass
}


class ParquetSource(OneFile):
    """A Parquet file, read in slices with a limited number of rows and bytes; InputInvalid if it cannot be read."""

    format = "parquet"
    textual = False

    def __init__(self, file: InputFile) -> None:
        super().__init__(file)
        with self._open() as opened:
            self._schema = without_views(opened.schema_arrow)
            self.rows: int | None = opened.metadata.num_rows
            groups = (opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups))
            self._row_bytes = max((g.total_byte_size // max(1, g.num_rows) for g in groups), default=1) or 1
        self.columns: tuple[str, ...] = tuple(self._schema.names)
        if len(set(self.columns)) < len(self.columns):
            duplicate = next(name for name in self.columns if self.columns.count(name) > 1)
            cause = f"{self.name}: two columns are named {duplicate!r}"
            raise InputInvalid(cause, remedy="give each column its own name")

    def schema(self, *_: Any) -> Any:
        return self._schema

    def chunks(self, rows: int, past: int = 0) -> Iterator[Chunk]:
        first = 1
        with self._open() as file:
            for batch in file.iter_batches(batch_size=max(1, min(rows, CHUNK_BYTES // self._row_bytes))):
                batch = batch if batch.schema == self._schema else batch.cast(self._schema)
                offset = self.size * (first - 1 + len(batch)) // max(1, self.rows or 1)
                if past > 0:
                    yield skipped_chunk(self.file.short, first, len(batch), offset)
                else:
                    yield Chunk(self.file.short, first, *records_of(batch, first), None, batch, offset)
                first, past = first + len(batch), past - 1

    @contextmanager
    def _open(self) -> Iterator[Any]:
        pa, pq = need("pyarrow", extra="batch"), need("pyarrow.parquet", extra="batch")
        with self.file.open() as stream:
            try:  # buffered, because a column of a row group may be larger than memory
                with pq.ParquetFile(stream, buffer_size=BUFFER) as file:
                    yield file
            except (pa.ArrowException, OSError) as error:
                cause = f"{self.name} cannot be read as Parquet: {error}"
                raise InputInvalid(cause, remedy="the file is damaged or not Parquet: create it again") from error


class ParquetWriter:
    """Writes one row group per chunk. Predictions have the type that the signature declares, else they are text.

    The rows of a part are first written as Arrow streams. A prediction that its declared type cannot represent exactly
    is rejected. Text is the same as in CSV: strings unchanged, everything else as JSON.
    """

    def __init__(self, source: RowSource, outputs: Outputs) -> None:
        self._pa = need("pyarrow", extra="batch")
        self._schema = source.schema()
        self._outputs = _declared(outputs)
        self._type = _arrow_type(self._pa, self._outputs)
        self._output_schema = self._schema.append(self._pa.field(PREDICTIONS, self._type))
        self._ipc = need("pyarrow.ipc", extra="batch")

    def fit(self, predictions: Sequence[object]) -> list[Result]:
        return isolate(self._fit, predictions)

    def begin(self, stream: BinaryIO) -> None:
        pass

    def write(self, stream: BinaryIO, chunk: Chunk, kept: Sequence[int], predictions: Sequence[object]) -> None:
        column = self._pa.array(predictions, self._type)
        if isinstance(chunk.native, self._pa.RecordBatch):
            batch = chunk.native.select(self._schema.names)
            columns = batch.take(self._pa.array(kept, self._pa.int64())).columns
        else:
            records = [chunk.records[index] for index in kept]
            columns = [self._column(field, records) for field in self._schema]
        rows = self._pa.record_batch([*columns, column], schema=self._output_schema)
        options = self._ipc.IpcWriteOptions(compression="lz4")
        with self._ipc.new_stream(stream, self._output_schema, options=options) as piece:
            piece.write_batch(rows)

    def seal(self, pieces: BinaryIO, stream: BinaryIO) -> None:
        end = pieces.seek(0, 2)
        pieces.seek(0)
        with need("pyarrow.parquet", extra="batch").ParquetWriter(stream, self._output_schema) as file:
            while pieces.tell() < end:  # each chunk is a stream with one batch
                with self._ipc.open_stream(pieces) as batches:
                    file.write_batch(batches.read_next_batch())
                    for _ in batches:
                        pass  # reads the end-of-stream marker

    def _column(self, field: Any, records: Sequence[Mapping[str, object]]) -> Any:
        text = field.type == self._pa.string()
        values = (record.get(field.name) for record in records)
        return self._pa.array([_text(value) if text else value for value in values], field.type)

    def _fit(self, predictions: Sequence[object]) -> list[Result]:
        try:
            values = [_exact(value, self._outputs) for value in predictions]
            self._pa.array(values, self._type)  # checks the range of integers and the encoding of text
        except (self._pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise RowRefused(
                f"the prediction does not fit the column's type {self._type}: {error}",
                remedy="write JSON Lines (--format jsonl), or correct the outputs in the model's signature",
            ) from error
        return [Ok(value) for value in values]


def _declared(outputs: Outputs) -> tuple[Field, ...]:
    """The outputs if each has an Arrow type, and a name unless it is the only one; else an empty tuple."""
    fields = outputs or ()
    plain = all(field.kind in KINDS and (field.name is not None or len(fields) == 1) for field in fields)
    return fields if plain else ()


def _arrow_type(pa: Any, outputs: tuple[Field, ...]) -> Any:
    types = [(field.name, pa.type_for_alias(KINDS[field.kind][0])) for field in outputs]
    if not types:
        return pa.string()
    return types[0][1] if len(types) == 1 else pa.struct(types)


def _exact(value: object, outputs: tuple[Field, ...]) -> object:
    """The value as the declared outputs; TypeError if they cannot represent it exactly. Arrow would cut 4.75 to 4."""
    if value is None or not outputs:
        return _text(value)
    if len(outputs) == 1:
        return _scalar(value, outputs[0].kind)
    kinds = {str(field.name): field.kind for field in outputs}
    if not isinstance(value, Mapping) or not value.keys() <= kinds.keys():
        raise TypeError(f"expected a record of {', '.join(kinds)}, got {str(value)[:100]}")
    return {name: _scalar(member, kinds[name]) for name, member in value.items()}


def _scalar(value: object, kind: str) -> object:
    """The value as the MLflow type `kind`; TypeError or OverflowError if it cannot represent the value exactly."""
    if value is None or kind == "string":
        return _text(value)
    if kind in ("double", "float") and isinstance(value, int) and not isinstance(value, bool) and float(value) == value:
        value = float(value)
    if kind == "float" and isinstance(value, float):
        struct.pack("<f", value)  # raises OverflowError for a value that Arrow would write as infinity
    if not isinstance(value, KINDS[kind][1]) or (isinstance(value, bool) and kind != "boolean"):
        raise TypeError(f"expected a {kind}, got {str(value)[:100]} ({type(value).__name__})")
    return value


def _text(value: object) -> str | None:
    return None if value is None else as_cell(value)


open_source, open_writer = ParquetSource, ParquetWriter
