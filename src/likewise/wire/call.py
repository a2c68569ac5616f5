"""What a decoded request is, and in which form its asker wants the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from likewise.core.items import Item, Params, Request, Table


class Form(Enum):
    """How the answer is to be written."""

    MLFLOW = "mlflow"
    """MLflow 2 and 3: `{"predictions": …}`."""
    LEGACY = "legacy"
    """MLflow 1: the bare predictions, a frame as a list of records."""
    DOCUMENT = "document"
    """MLflow 3 for `messages`, `prompt` and `input`: the bare predictions."""


@dataclass(frozen=True, slots=True)
class DecodedRequest:
    """One request, read: its rows, fitted to the model's signature; its params; the form of its answer."""

    table: Table
    params: Params = field(default_factory=dict)
    form: Form = Form.MLFLOW

    def by_row(self, row_wise: bool) -> bool:
        """Whether a model that is `row_wise` or not answers this call row by row, and not as one `Request`."""
        return row_wise and self.table.sent is None

    def items(self, row_wise: bool) -> list[Item]:
        """What to ask a model that is `row_wise` or not: one `Row` a row, or one `Request` for it all."""
        if self.by_row(row_wise):
            return list(self.table.split(self.params))
        return [Request(self.table, self.params)]
