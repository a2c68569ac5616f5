"""Divides the golden set into requests: in random order and of random sizes, where rows do not depend on each other."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from likewise.core.engine import Engine, predict_items
from likewise.core.errors import LikewiseError
from likewise.core.items import Item, Request, Row, Table
from likewise.core.keys import item_key
from likewise.core.results import Failed
from likewise.engine.plain_values import per_row
from likewise.parity.compare import RefusedRow
from likewise.parity.golden import Unfit

ROWS = 64  # of a request at most


@dataclass(frozen=True, slots=True)
class Batch:
    """Items of one request: rows with the same columns and params, a document, or a row that does not fit the model.

    indices: of the items in the golden set.
    """

    indices: Sequence[int]
    request: Request
    unfit: Unfit | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def whole(self) -> bool:
        """Whether it has one answer that is not for a row: a document."""
        return len(self.request.table) != len(self) or self.request.table.sent is not None

    def rows(self) -> list[Row]:
        """The rows of its table."""
        return list(self.request.table.split(self.request.params))

    def single(self) -> Iterator[Batch]:
        """A batch for each row."""
        table, params = self.request.table, self.request.params
        for index, row in zip(self.indices, table.rows, strict=True):
            yield Batch([index], Request(Table(table.columns, [row], arrow=table.arrow), params))


def batches(items: Sequence[Item | Unfit], row_wise: bool, order: random.Random | None = None) -> list[Batch]:
    """All items.  If rows may depend on each other, those of a batch are always the same: ROWS consecutive ones.

    order: of the batches, and if the model is row-wise also of the rows and the sizes; None for the order of the items.
    """
    made: list[Batch] = []
    groups: dict[object, list[int]] = {}
    for index, item in enumerate(items):
        if isinstance(item, Unfit):
            made.append(Batch([index], Request(Table(tuple(item.record), [tuple(item.record.values())])), item))
        elif isinstance(item, Request):
            made.append(Batch([index], item))
        else:
            block = 0 if row_wise else index // ROWS
            groups.setdefault((block, *_together(item)), []).append(index)
    for group in groups.values():
        if row_wise and order is not None:
            order.shuffle(group)
        start = 0
        while start < len(group):
            size = order.randint(1, ROWS) if row_wise and order is not None else ROWS
            chosen = group[start : start + size]
            rows = [item for index in chosen if isinstance(item := items[index], Row)]
            table = Table(rows[0].columns, [row.values for row in rows], arrow=rows[0].arrow)
            made.append(Batch(chosen, Request(table, rows[0].params)))
            start += size
    if order is not None:
        order.shuffle(made)
    return made


def _together(row: Row) -> tuple[object, ...]:
    """Equal for rows that may be in one request."""
    return row.columns, row.arrow, item_key(Row(None, (), row.params))


def predict_batch(engine: Engine, batch: Batch) -> list[object]:
    """The engine's prediction of each item, or RefusedRow."""
    if batch.unfit is not None:
        return [RefusedRow(batch.unfit.error.code, batch.unfit.error.cause)]
    by_row = engine.spec.row_wise and not batch.whole
    results = predict_items(engine, batch.rows() if by_row else [batch.request])
    values = [
        RefusedRow(each.error.code, each.error.cause) if isinstance(each, Failed) else each.value for each in results
    ]
    return values if by_row else by_item(values[0], batch)


def by_item(predictions: object, batch: Batch) -> list[object]:
    """The prediction of each item; all have the same one if there is not one for each row."""
    if not batch.whole and not isinstance(predictions, RefusedRow):
        with suppress(LikewiseError):
            return per_row(predictions, len(batch))
    return [predictions] * len(batch)
