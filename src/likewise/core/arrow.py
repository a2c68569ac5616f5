"""Arrow record batches as rows of Python values, for Parquet files, request bodies and Spark; needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from likewise.core.casts import Nanoseconds, epoch_nanoseconds
from likewise.core.errors import InputInvalid, LikewiseError
from likewise.core.extras import need
from likewise.core.text import unicode_fault

_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}


def records_of(batch: Any, first: int | None = None) -> tuple[list[dict[str, Any]], dict[int, LikewiseError]]:
    """The rows by column name, and the errors of invalid rows by index. first: number of the first, for messages.

    Timestamps are naive datetimes in UTC, with nanoseconds if need be; a map is a dict; all other values are those of
    `pyarrow.Scalar.as_py`.
    """
    try:
        batch.validate(full=True)  # the only check that text is valid UTF-8
        columns = [_values(column) for column in batch.columns]
        names = batch.schema.names
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)], {}
    except (ValueError, OverflowError, KeyError):  # ArrowInvalid and UnicodeDecodeError are ValueErrors
        labels = ["the row" if first is None else f"row {first + index}" for index in range(len(batch))]
        rows = [_row(batch.slice(index, 1), where) for index, where in enumerate(labels)]
    return [record for record, _ in rows], {index: fault for index, (_, fault) in enumerate(rows) if fault}


def _values(column: Any) -> list[Any]:
    pa = need("pyarrow", extra="batch")
    kind = column.type
    if pa.types.is_timestamp(kind):
        factor = _NANOSECONDS[kind.unit]
        ticks = column.cast(pa.int64()).to_pylist()
        return [None if tick is None else Nanoseconds.since_epoch(tick * factor) for tick in ticks]
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())  # `as_py` gives a NumPy scalar
    values: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    return values


def _row(row: Any, where: str) -> tuple[dict[str, Any], LikewiseError | None]:
    """A batch of one row by column name, and its error if it is invalid."""
    record: dict[str, Any] = {}
    fault: LikewiseError | None = None
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            record[name] = _values(column)[0]
        except UnicodeDecodeError as error:
            record[name] = error.object.decode(errors="surrogateescape")
            fault = unicode_fault(str(record[name]), f"{where}, column `{name}`,")
        except (ValueError, OverflowError, KeyError) as error:  # a date outside Python's range, a map with equal keys
            fault = InputInvalid(f"{where}, column `{name}`: {error}", remedy="correct the value")
    return record, fault


def schema_bytes(schema: Any, names: Mapping[str, str] | None = None) -> bytes:
    """`schema` for `core.items.Table.arrow`, without an index of pandas. names: new names of columns."""
    pa = need("pyarrow", extra="batch")
    names = names or {}
    fields = [field.with_name(names.get(field.name, field.name)) for field in without_views(schema)]
    metadata = dict(schema.metadata or {})
    if b"pandas" in metadata:
        described = json.loads(metadata[b"pandas"])
        columns = [c for c in described.get("columns", []) if c.get("name") is not None]
        for column in columns:
            column["name"] = names.get(column["name"], column["name"])
        metadata = {b"pandas": json.dumps({**described, "index_columns": [], "columns": columns}).encode()}
    data: bytes = pa.schema(fields, metadata=metadata or None).serialize().to_pybytes()
    return data


def array_of(values: Sequence[Any], kind: Any) -> Any:
    """The values of `records_of` as an array of their Arrow type again; raises what `pyarrow.array` raises."""
    pa = need("pyarrow", extra="batch")
    if pa.types.is_timestamp(kind):
        factor = _NANOSECONDS[kind.unit]
        ticks = [None if value is None else epoch_nanoseconds(value) // factor for value in values]
        return pa.array(ticks, pa.int64()).cast(kind)
    return pa.array(values, kind)


def without_views(schema: Any) -> Any:
    """The `pyarrow.Schema` with `string`, `binary` and `list` instead of their views, also in nested types.

    Arrow can neither take rows from views nor write all of them to Parquet; `cast_batch` converts them without loss.
    """
    pa = need("pyarrow", extra="batch")
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return with_types(schema, lambda kind: plain.get(kind, kind))


def cast_batch(batch: Any, schema: Any) -> Any:
    """The batch with the types of `schema`."""
    pa = need("pyarrow", extra="batch")
    if batch.schema == schema:
        return batch
    columns = [_cast(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: Any, kind: Any) -> Any:
    pa = need("pyarrow", extra="batch")
    if "list_view" in str(column.type):  # Arrow 25 casts them to invalid lists
        return pa.array(column.to_pylist(), kind)
    return column if column.type == kind else column.cast(kind)


def with_types(schema: Any, change: Callable[[Any], Any]) -> Any:
    """The `pyarrow.Schema` with other types.  change: gives the new type of values that are not nested."""
    pa = need("pyarrow", extra="batch")
    return pa.schema([field.with_type(changed(field.type, change)) for field in schema], metadata=schema.metadata)


def changed(kind: Any, change: Callable[[Any], Any]) -> Any:
    """The `pyarrow.DataType` with the types of values that are not nested changed, and lists instead of their views."""
    pa = need("pyarrow", extra="batch")
    types = pa.types
    if types.is_struct(kind):
        return pa.struct([field.with_type(changed(field.type, change)) for field in kind])
    if types.is_map(kind):
        key, item = (field.with_type(changed(field.type, change)) for field in (kind.key_field, kind.item_field))
        return pa.map_(key, item, kind.keys_sorted)
    for is_list, list_of in (
        (types.is_list, pa.list_),
        (types.is_large_list, pa.large_list),
        (types.is_list_view, pa.list_),
        (types.is_large_list_view, pa.large_list),
        (types.is_fixed_size_list, lambda field: pa.list_(field, kind.list_size)),
    ):
        if is_list(kind):
            return list_of(kind.value_field.with_type(changed(kind.value_type, change)))
    return change(kind)
