"""Decoded requests, and the form of their responses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from likewise.core.items import NO_PARAMS, Item, Params, Request, Table


class Form(Enum):
    """The form in which the response is encoded."""

    MLFLOW = "mlflow"
    """MLflow 2 and 3: `{"predictions": …}`."""
    LEGACY = "legacy"
    """MLflow 1: the bare predictions, a frame as a list of records."""
    DOCUMENT = "document"
    """MLflow 3 for `messages`, `prompt` and `input`: the bare predictions."""


@dataclass(frozen=True, slots=True)
class DecodedRequest:
    """A decoded request: its rows, cast to the model's signature; its params; the form of its response.

    ignored: names of params that the model does not take, which MLflow ignores, too.
    """

    table: Table
    params: Params = NO_PARAMS
    form: Form = Form.MLFLOW
    ignored: tuple[str, ...] = ()

    def by_row(self, row_wise: bool) -> bool:
        """Whether the request is processed row by row instead of as one `Request`; `row_wise` describes the model."""
        return row_wise and self.table.sent is None

    def items(self, row_wise: bool) -> list[Item]:
        """The items for the engine: one `Row` per row, or one `Request` for all rows; see `by_row`."""
        if self.by_row(row_wise):
            return list(self.table.split(self.params))
        return [Request(self.table, self.params)]
