"""Arrow batches as Spark cuts them, made into windows that the engine does well with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from likewise.batch.columns import RowMaker
from likewise.batch.formats import Source
from likewise.batch.values import unicode_fault
from likewise.core.errors import InputInvalid, LikewiseError
from likewise.core.items import NO_PARAMS, Item, Params
from likewise.core.results import Failed
from likewise.core.signature import Signature

WINDOW_ROWS = 4096
WINDOW_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Columns:
    """The part of a `Source` that tells a `RowMaker` the columns: typed ones, as of a Parquet file."""

    columns: tuple[str, ...]
    name: str = "the frame"
    format: str = "parquet"
    textual: bool = False

    @property
    def parts(self) -> tuple[Columns, ...]:
        """Itself: one frame."""
        return (self,)


def row_maker(columns: Sequence[str], signature: Signature, mapping: Mapping[str, str]) -> RowMaker:
    """Makes the model's rows of a frame's; InputInvalid where a column is missing."""
    return RowMaker(cast(Source, Columns(tuple(columns))), signature, mapping)


def pieces(batch: Any) -> Iterator[Any]:
    """Slices of bounded rows and bytes of a batch of any size."""
    rows = max(1, min(WINDOW_ROWS, batch.num_rows * WINDOW_BYTES // max(1, batch.nbytes)))
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def windows(batches: Iterator[Any]) -> Iterator[list[Any]]:
    """Slices of one or more batches that make up a window; every row stands in exactly one, in order."""
    gathered: list[Any] = []
    rows = size = 0
    for batch in batches:
        for piece in pieces(batch):
            gathered.append(piece)
            rows, size = rows + piece.num_rows, size + piece.nbytes
            if rows >= WINDOW_ROWS or size >= WINDOW_BYTES:
                yield gathered
                gathered, rows, size = [], 0, 0
    if gathered:
        yield gathered


def items_of(window: Sequence[Any], maker: RowMaker, params: Params = NO_PARAMS) -> list[Item | Failed]:
    """The model's rows, or why one cannot be made."""
    made: list[Item | Failed] = []
    for record in (record for piece in window for record in records_of(piece)):
        row = Failed(record) if isinstance(record, LikewiseError) else maker(record, "the row")
        made.append(row if isinstance(row, Failed) or not params else replace(row, params=params))
    return made


def records_of(batch: Any) -> list[Mapping[str, object] | LikewiseError]:
    """The rows as Python has them; in place of one with text that is not UTF-8, or a date past Python's, the reason."""
    try:
        return cast("list[Mapping[str, object] | LikewiseError]", batch.to_pylist())
    except (ValueError, OverflowError):
        return [_record(batch.slice(index, 1)) for index in range(batch.num_rows)]


def _record(row: Any) -> Mapping[str, object] | LikewiseError:
    record: dict[str, object] = {}
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            record[name] = column[0].as_py()
        except UnicodeDecodeError as error:
            text = error.object.decode(errors="surrogateescape")
            return unicode_fault(text, f"column `{name}`") or _invalid(name, error)
        except (ValueError, OverflowError) as error:
            return _invalid(name, error)
    return record


def _invalid(name: str, error: Exception) -> InputInvalid:
    return InputInvalid(f"column `{name}`: {error}", remedy="correct the value")
