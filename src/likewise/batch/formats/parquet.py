"""Parquet: typed columns, carried through as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from likewise.batch.formats import CHUNK_BYTES, PREDICTIONS, Chunk, Source
from likewise.batch.values import as_cell, unicode_fault
from likewise.core.errors import InputInvalid, LikewiseError, RowRefused
from likewise.core.extras import need
from likewise.core.isolate import isolate
from likewise.core.results import Ok, Result
from likewise.core.signature import Field

Outputs = tuple[Field, ...] | None

# MLflow's type names as Arrow's
KINDS = {
    "string": "string",
    "long": "int64",
    "integer": "int32",
    "double": "float64",
    "float": "float32",
    "boolean": "bool",
    "binary": "binary",
    "datetime": "timestamp[us]",
}


class ParquetSource:
    """A Parquet file, read in slices of bounded rows and bytes."""

    format = "parquet"
    textual = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        with self._open() as file:
            self._schema = file.schema_arrow
            self.rows: int | None = file.metadata.num_rows
            groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
            self._row_bytes = max((g.total_byte_size // max(1, g.num_rows) for g in groups), default=1) or 1
        self.columns: tuple[str, ...] = tuple(self._schema.names)

    def schema(self) -> Any:
        return self._schema

    def chunks(self, rows: int) -> Iterator[Chunk]:
        first = 1
        with self._open() as file:
            batches = file.iter_batches(batch_size=max(1, min(rows, CHUNK_BYTES // self._row_bytes)))
            while (batch := self._next(batches)) is not None:
                offset = self.size * (first - 1 + len(batch)) // max(1, self.rows or 1)
                yield _chunk(self.path.name, first, batch, offset)
                first += len(batch)

    def _open(self) -> Any:
        pq = need("pyarrow.parquet", extra="batch")
        try:
            return pq.ParquetFile(self.path)
        except (need("pyarrow", extra="batch").ArrowException, OSError) as error:
            raise self._broken(error) from error

    def _next(self, batches: Iterator[Any]) -> Any:
        try:
            return next(batches, None)
        except (need("pyarrow", extra="batch").ArrowException, OSError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> InputInvalid:
        return InputInvalid(f"{self.path} cannot be read as Parquet: {error}", remedy="write the file again")


def _chunk(file: str, first: int, batch: Any, offset: int) -> Chunk:
    try:
        batch.validate(full=True)  # text is checked for UTF-8 only here
        return Chunk(file, first, batch.to_pylist(), {}, None, batch, offset)
    except (ValueError, OverflowError):  # ArrowInvalid and UnicodeDecodeError are ValueErrors
        rows = [_row(batch.slice(index, 1), f"row {first + index}") for index in range(len(batch))]
    faults = {index: fault for index, (_, fault) in enumerate(rows) if fault}
    return Chunk(file, first, [record for record, _ in rows], faults, None, batch, offset)


def _row(row: Any, where: str) -> tuple[Mapping[str, object], LikewiseError | None]:
    record: dict[str, object] = {}
    fault: LikewiseError | None = None
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            record[name] = column[0].as_py()
        except UnicodeDecodeError as error:
            record[name] = error.object.decode(errors="surrogateescape")
            fault = unicode_fault(str(record[name]), f"{where}, column `{name}`,")
        except (ValueError, OverflowError) as error:  # a date that Python's calendar does not have
            fault = InputInvalid(f"{where}, column `{name}`: {error}", remedy="correct the value")
    return record, fault


class ParquetWriter:
    """One row group a chunk; the predictions' type as the signature declares it, else as the first chunk shows it."""

    def __init__(self, source: Source, outputs: Outputs) -> None:
        self._pa = need("pyarrow", extra="batch")
        self._schema = source.schema()
        self._type = _declared(self._pa, outputs)

    def fit(self, predictions: Sequence[object]) -> list[Result]:
        if self._type is None and predictions:
            self._type = self._inferred(predictions)
        return isolate(self._fit, predictions)

    def begin(self, stream: BinaryIO) -> None:
        # an empty part has text for want of an answer that shows the type
        self._whole = self._schema.append(self._pa.field(PREDICTIONS, self._type or self._pa.string()))
        self._file = need("pyarrow.parquet", extra="batch").ParquetWriter(stream, self._whole)

    def write(self, chunk: Chunk, kept: Sequence[int], predictions: Sequence[object]) -> None:
        added = self._pa.array(predictions, self._type)
        if isinstance(chunk.native, self._pa.RecordBatch):
            columns = chunk.native.take(self._pa.array(kept, self._pa.int64())).columns
        else:
            records = [chunk.records[index] for index in kept]
            columns = [self._column(field, records) for field in self._schema]
        self._file.write_batch(self._pa.record_batch([*columns, added], schema=self._whole))

    def close(self) -> None:
        self._file.close()

    def _column(self, field: Any, records: Sequence[Mapping[str, object]]) -> Any:
        return self._pa.array([self._typed(record.get(field.name), field.type) for record in records], field.type)

    def _typed(self, value: object, arrow_type: Any) -> object:
        return value if value is None or arrow_type != self._pa.string() else as_cell(value)

    def _fit(self, predictions: Sequence[object]) -> list[Result]:
        values = [self._typed(value, self._type) for value in predictions]
        try:
            self._pa.array(values, self._type)
        except (self._pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise RowRefused(
                f"the prediction does not fit the column's type {self._type}: {error}",
                remedy="write JSON lines (--format jsonl), or let the model answer with one type",
            ) from error
        return [Ok(value) for value in values]

    def _inferred(self, predictions: Sequence[object]) -> Any:
        try:
            found = self._pa.array(predictions).type
        except (self._pa.ArrowException, ValueError):  # values of several types, or text that is no Unicode
            return self._pa.string()
        return self._pa.string() if self._pa.types.is_null(found) else found


def _declared(pa: Any, outputs: Outputs) -> Any:
    if not outputs or any(field.kind not in KINDS for field in outputs):
        return None
    types = [(field.name, pa.type_for_alias(KINDS[field.kind])) for field in outputs]
    if len(types) == 1:
        return types[0][1]
    return None if any(name is None for name, _ in types) else pa.struct(types)


def open_source(path: Path) -> ParquetSource:
    """A Parquet file; InputInvalid where its footer cannot be read."""
    return ParquetSource(path)


def open_writer(source: Source, outputs: Outputs) -> ParquetWriter:
    """A Parquet writer; `outputs` as the model's signature declares them."""
    return ParquetWriter(source, outputs)
