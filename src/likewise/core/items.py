"""The inputs of a model.

A protocol frontend decodes its wire format to a `Table`.  For a model whose rows are independent, the table is split
into `Row`s; for any other model it becomes one `Request`.  Values are JSON types, plus bytes, date and datetime; a
column without a type in the signature has whatever its source contains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Params = Mapping[str, object] | None  # None: the request has none, and the model does not declare any
NO_PARAMS: Params = None
ARRAYS = b""  # for `Table.arrow`: arrays are NumPy arrays, of the types in the signature


@dataclass(frozen=True, slots=True)
class Sent:
    """A request's JSON value, for requests that MLflow passes to the model as JSON or as arrays instead of a table.

    form: `inputs` or `instances`, whose values become arrays; `document`, which is passed to the model unchanged.
    """

    form: str
    value: object


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one request, or of one chunk of a job.

    `columns` is None if the client sent unnamed values (a bare tensor): each row then has exactly one value.
    `sent` is set if rows cannot represent the model's input: such a table is always processed as one `Request`.
    `arrow` is the serialized Arrow schema of a typed source (Parquet, Spark), whose dtypes the model gets where the
    signature does not set them.
    """

    columns: tuple[str, ...] | None
    rows: Sequence[tuple[object, ...]]
    sent: Sent | None = None
    arrow: bytes | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, params: Params = NO_PARAMS) -> Iterator[Row]:
        """One `Row` per row, sharing the tuple of column names."""
        return (Row(self.columns, values, params, self.arrow) for values in self.rows)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the input item of a row-wise model and of every batch job.  `arrow`: see `Table`."""

    columns: tuple[str, ...] | None
    values: tuple[object, ...]
    params: Params = NO_PARAMS
    arrow: bytes | None = field(default=None, repr=False)

    def get(self, column: str) -> object:
        """The value of `column`; raises KeyError if the row does not have it."""
        if self.columns is None or column not in self.columns:
            raise KeyError(column)
        return self.values[self.columns.index(column)]


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request: the input item of a model whose rows may depend on each other. Never merged with another."""

    table: Table
    params: Params = NO_PARAMS


Item = Row | Request
