"""Predicts a golden set through any function that takes a request body and returns a response."""

from __future__ import annotations

import json
from collections.abc import Callable

from likewise.core.errors import DeployFailed
from likewise.parity.compare import RefusedRow
from likewise.parity.golden import Golden
from likewise.targets.base import Response

ROWS = 64  # per request
REFUSALS = (400, 422, 500)  # 500: a model that fails on all rows of a request, which may have only one


Post = Callable[[bytes], Response]
"""Sends a request body and returns the response."""


def predict_by_requests(golden: Golden, post: Post, where: str, row_wise: bool) -> list[object]:
    """The prediction of each row, or RefusedRow; if a request with several rows is refused, its rows are sent singly.

    A model whose rows depend on each other gets all rows in one request.  Raises DeployFailed if the backend itself
    fails. where: the backend, for messages.
    """
    if not row_wise or golden.table.sent is not None:
        return per_row(_predictions(post(golden.body(0, len(golden))), where), len(golden))
    predictions: list[object] = []
    for first in range(0, len(golden), ROWS):
        count = min(ROWS, len(golden) - first)
        batch = per_row(_rows(_predictions(post(golden.body(first, count)), where), count), count)
        if count > 1 and len(batch) == 1:  # refused, or not one prediction per row
            single = [_predictions(post(golden.body(first + row, 1)), where) for row in range(count)]
            batch = [per_row(_rows(each, 1), 1)[0] for each in single]
        predictions += batch
    return predictions


def _rows(predictions: object, count: int) -> object:
    """A record for each row of an object with a list per output, as a model of tensors returns; else unchanged."""
    if not isinstance(predictions, dict) or not predictions:
        return predictions
    if not all(isinstance(each, list) and len(each) == count for each in predictions.values()):
        return predictions
    return [dict(zip(predictions, values, strict=True)) for values in zip(*predictions.values(), strict=True)]


def per_row(predictions: object, count: int) -> list[object]:
    """The predictions if there is one for each of `count` rows, else all of them as a single one."""
    return predictions if isinstance(predictions, list) and len(predictions) == count else [predictions]


def _predictions(response: Response, where: str) -> object:
    """The predictions in a response, or RefusedRow; DeployFailed for any other response."""
    try:
        document = json.loads(response.body, parse_constant=lambda _: None)  # MLflow writes NaN where others write null
    except ValueError as error:
        raise _unexpected_response(response, where) from error
    if response.status == 200:
        return document["predictions"] if isinstance(document, dict) and "predictions" in document else document
    if response.status in REFUSALS and isinstance(document, dict) and "error_code" in document:
        return RefusedRow(str(document["error_code"]))
    raise _unexpected_response(response, where)


def _unexpected_response(response: Response, where: str) -> DeployFailed:
    text = response.body[:300].decode(errors="replace")
    return DeployFailed(
        f"{where} responded with status {response.status}: {text}", remedy="check that it is ready, then verify again"
    )
