"""Regrouping of Spark's Arrow batches into windows of a size that suits the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from likewise.batch.columns import RowMaker
from likewise.batch.formats import CHUNK_BYTES, RowSource
from likewise.core.arrow import records_of
from likewise.core.items import NO_PARAMS, Item, Params
from likewise.core.results import Failed
from likewise.core.signature import Signature

WINDOW_ROWS = 4096


@dataclass(frozen=True, slots=True)
class InputColumns:
    """The part of a `Source` that row makers and writers use: the columns, by default those of a frame.

    types: a `pyarrow.Schema`; None if the output needs none.
    """

    columns: tuple[str, ...]
    name: str = "the frame"
    format: str = "parquet"
    textual: bool = False
    types: Any = None

    @property
    def parts(self) -> tuple[InputColumns, ...]:
        """This object: one frame, or files whose columns the driver has compared."""
        return (self,)

    def schema(self) -> Any:
        """All columns with their types."""
        return self.types


def row_maker(columns: Sequence[str], signature: Signature, mapping: Mapping[str, str], types: Any = None) -> RowMaker:
    """A converter from a frame's rows to the model's; InputInvalid if a column is missing. types: the Arrow schema."""
    return RowMaker(cast(RowSource, InputColumns(tuple(columns), types=types)), signature, mapping)


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


def items_of(window: Sequence[Any], maker: RowMaker, params: Params = NO_PARAMS) -> list[Item | Failed]:
    """The model's rows, or the error of a row that cannot be converted."""
    items: list[Item | Failed] = []
    for piece in window:
        records, faults = records_of(piece)
        for index, record in enumerate(records):
            row = Failed(faults[index]) if index in faults else maker(record, "the row")
            items.append(row if isinstance(row, Failed) or not params else replace(row, params=params))
    return items
