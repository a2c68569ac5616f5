"""Parquet: typed columns, copied from input to output unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from likewise.batch.files import BUFFER, InputFile
from likewise.batch.formats import CHUNK_BYTES, PREDICTIONS, Chunk, OneFile, RowSource, skipped_chunk
from likewise.batch.formats.prediction_types import (
    Kind,
    all_merged,
    converter,
    inferred_array,
    inferred_type,
    kind_of,
    merged,
)
from likewise.batch.values import as_cell, unwritable
from likewise.core.arrow import cast_batch, records_of, without_views
from likewise.core.arrow_types import declared_type
from likewise.core.errors import InputInvalid, RowRefused
from likewise.core.extras import need
from likewise.core.isolation import isolate
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Field
from likewise.core.tagged_json import decode, encode
from likewise.core.text import unicode_fault

Outputs = tuple[Field, ...] | None


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
                batch = cast_batch(batch, self._schema)
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
    """Writes one row group per chunk. The rows of a part are first written as Arrow streams.

    Predictions have the type that the signature's outputs declare, and one that this type cannot represent exactly is
    rejected. If the outputs leave the type open, it is inferred from all predictions of the job: until then, streams
    contain them as JSON.  Predictions of different types become text as in CSV: strings unchanged, the rest as JSON.
    """

    def __init__(self, source: RowSource, outputs: Outputs) -> None:
        self._pa = pa = need("pyarrow", extra="batch")
        self._ipc = need("pyarrow.ipc", extra="batch")
        self._schema = source.schema()
        self._type = declared_type(pa, outputs)
        self._convert = None if self._type is None else converter(pa, self._type)
        self._kind: Kind = "null"

    @property
    def open_kind(self) -> Kind | None:
        return self._kind if self._type is None else None

    def include(self, kind: Kind | None) -> None:
        if kind is not None:
            self._kind = merged(self._kind, kind)

    @property
    def prediction_type(self) -> str:
        return str(self._final_type)

    def fit(self, predictions: Sequence[object]) -> list[Result]:
        return isolate(self._fit, predictions)

    def begin(self, stream: BinaryIO) -> None:
        pass

    def write(self, stream: BinaryIO, chunk: Chunk, kept: Sequence[int], predictions: Sequence[object]) -> None:
        values = predictions
        if self._type is None:
            kinds, values = zip(*cast(Sequence[tuple[Kind, str]], predictions), strict=True)
            self._kind = all_merged((self._kind, *kinds))
        column = self._pa.array(values, self._type or self._pa.string())
        if isinstance(chunk.native, self._pa.RecordBatch):
            batch = chunk.native.select(self._schema.names)
            columns = batch.take(self._pa.array(kept, self._pa.int64())).columns
        else:
            records = [chunk.records[index] for index in kept]
            columns = [self._column(field, records) for field in self._schema]
        rows = self._pa.record_batch([*columns, column], schema=self._with_predictions(column.type))
        options = self._ipc.IpcWriteOptions(compression="lz4")
        with self._ipc.new_stream(stream, rows.schema, options=options) as piece:
            piece.write_batch(rows)

    def seal(self, pieces: BinaryIO, stream: BinaryIO) -> None:
        end = pieces.seek(0, 2)
        pieces.seek(0)
        schema = self._with_predictions(self._final_type)
        with need("pyarrow.parquet", extra="batch").ParquetWriter(stream, schema) as file:
            while pieces.tell() < end:  # each chunk is a stream with one batch
                with self._ipc.open_stream(pieces) as batches:
                    file.write_batch(self._sealed(batches.read_next_batch(), schema))
                    for _ in batches:
                        pass  # reads the end-of-stream marker

    @property
    def _final_type(self) -> Any:
        return inferred_type(self._pa, self._kind) if self._type is None else self._type

    def _with_predictions(self, kind: Any) -> Any:
        return self._schema.append(self._pa.field(PREDICTIONS, kind))

    def _sealed(self, rows: Any, schema: Any) -> Any:
        """A batch of a stream with its predictions in their final type."""
        if self._type is not None:
            return rows
        values = [decode(text) for text in rows.columns[-1].to_pylist()]
        column = inferred_array(self._pa, self._kind, values)
        return self._pa.record_batch([*rows.columns[:-1], column], schema=schema)

    def _column(self, field: Any, records: Sequence[Mapping[str, object]]) -> Any:
        text = field.type == self._pa.string()
        values = (record.get(field.name) for record in records)
        return self._pa.array([as_cell(value) if text and value is not None else value for value in values], field.type)

    def _fit(self, predictions: Sequence[object]) -> list[Result]:
        if self._convert is None:
            return [_undeclared(value) for value in predictions]
        try:
            values = [self._convert(value) for value in predictions]
            self._pa.array(values, self._type)  # checks the range of integers and the encoding of text
        except (self._pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise RowRefused(
                f"the prediction does not fit the column's type {self._type}: {error}",
                remedy="write JSON Lines (--format jsonl), or log the model with infer_signature(rows, predictions)",
            ) from error
        return [Ok(value) for value in values]


def _undeclared(value: object) -> Result:
    """The kind of a prediction, and its JSON; or why it cannot be written."""
    try:
        kind, text = kind_of(value), encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        return Failed(unwritable(error))
    fault = unicode_fault(text, "the prediction")
    return Failed(fault) if fault else Ok((kind, text))


open_source, open_writer = ParquetSource, ParquetWriter
