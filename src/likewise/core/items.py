"""What is asked of a model.

A front door decodes its wire format to a `Table`; the table becomes one `Row` a row for a model whose rows are
independent, and one `Request` for any other.  Values are what JSON has, plus bytes, date and datetime.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Params = Mapping[str, object]
NO_PARAMS: Params = {}


@dataclass(frozen=True, slots=True)
class Sent:
    """A request's own JSON value, where MLflow hands the model that, or arrays made of it, and no table.

    form: `inputs` or `instances`, whose values become arrays; `document`, which reaches the model as it is.
    """

    form: str
    value: object


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one request or one chunk of a job.

    `columns` is None where the asker sent unnamed values (a bare tensor): each row then holds exactly one value.
    `sent` is there where rows cannot say what the model is to get: such a table is answered as one `Request`.
    """

    columns: tuple[str, ...] | None
    rows: Sequence[tuple[object, ...]]
    sent: Sent | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, params: Params = NO_PARAMS) -> Iterator[Row]:
        """One `Row` a row, sharing the tuple of column names."""
        return (Row(self.columns, values, params) for values in self.rows)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the item of a row-wise model and of every batch job."""

    columns: tuple[str, ...] | None
    values: tuple[object, ...]
    params: Params = field(default_factory=lambda: NO_PARAMS)

    def get(self, column: str) -> object:
        """The value of `column`; KeyError where the row has none."""
        if self.columns is None or column not in self.columns:
            raise KeyError(column)
        return self.values[self.columns.index(column)]


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request: the item of a model whose rows may depend on each other. Never merged with another."""

    table: Table
    params: Params = field(default_factory=lambda: NO_PARAMS)


Item = Row | Request
