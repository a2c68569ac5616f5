"""Regrouping of Spark's Arrow batches into windows of a size that suits the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from likewise.batch.columns import RowMaker
from likewise.batch.distributed import local_times
from likewise.batch.formats import CHUNK_BYTES, RowSource
from likewise.batch.inputs import InputColumns
from likewise.core.arrow import records_of
from likewise.core.errors import InputInvalid
from likewise.core.extras import need
from likewise.core.items import NO_PARAMS, Item, Params
from likewise.core.results import Failed
from likewise.core.signature import Signature

WINDOW_ROWS = 4096
VECTOR = ["type", "size", "indices", "values"]  # the fields of VectorUDT


def row_maker(schema: Any, signature: Signature, mapping: Mapping[str, str], params: Params = NO_PARAMS) -> RowMaker:
    """A converter from the rows of batches with this `pyarrow.Schema` to the model's rows, see `items_of`.

    Raises InputInvalid if a column is missing, or has a type that only Spark knows.
    """
    for name in schema.names:
        if mapping.get(name, name) in (signature.columns or (mapping.get(name, name),)):
            _require_known(name, schema.field(name).type)
    source = InputColumns(tuple(schema.names), types=local_times.local_schema(schema))
    return RowMaker(cast(RowSource, source), signature, mapping, params=params)


def _require_known(name: str, kind: Any) -> None:
    """InputInvalid for types that Arrow represents as structs of bytes, which no model expects."""
    types = need("pyarrow", extra="batch").types
    if not types.is_struct(kind):
        return
    marks = {mark for field in kind for mark in field.metadata or ()}
    if [field.name for field in kind] == VECTOR:
        problem, remedy = "vectors of pyspark.ml", f"convert it: pyspark.ml.functions.vector_to_array({name!r})"
    elif b"variant" in marks:
        problem, remedy = "variants", f"convert it: to_json({name!r}), or variant_get with the type"
    elif marks & {b"geometry", b"geography"}:
        problem, remedy = "shapes", f"convert it: st_asbinary({name!r})"
    else:
        return
    raise InputInvalid(f"the column `{name}` contains {problem}, which models do not take", remedy=remedy)


def pieces(batch: Any, most: int = WINDOW_ROWS) -> Iterator[Any]:
    """Slices of a batch, bounded in rows and bytes."""
    rows = max(1, min(most, batch.num_rows * CHUNK_BYTES // max(1, batch.nbytes)))
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def windows(batches: Iterator[Any]) -> Iterator[list[Any]]:
    """Windows, each a list of slices of one or more batches; every row is in exactly one window, in order."""
    gathered: list[Any] = []
    rows = size = 0
    for batch in batches:
        for piece in pieces(batch):
            gathered.append(piece)
            rows, size = rows + piece.num_rows, size + piece.nbytes
            if rows >= WINDOW_ROWS or size >= CHUNK_BYTES:
                yield gathered
                gathered, rows, size = [], 0, 0
    if gathered:
        yield gathered


def items_of(window: Sequence[Any], maker: RowMaker) -> list[Item | Failed]:
    """The model's rows, or the error of a row that cannot be converted; times are naive, in the session's zone."""
    items: list[Item | Failed] = []
    for piece in window:
        records, faults = records_of(local_times.local_batch(piece))
        for index, record in enumerate(records):
            items.append(Failed(faults[index]) if index in faults else maker(record, "the row"))
    return items
