"""Sends a golden set to anything that takes requests, and reads the predictions in the responses."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping

from likewise.core.errors import DeployFailed
from likewise.core.json_values import json_form
from likewise.core.signature import Signature
from likewise.parity.batches import Batch, by_item
from likewise.parity.compare import RefusedRow
from likewise.parity.comparison import Comparison
from likewise.targets.base import Response
from likewise.targets.responses import predictions_in
from likewise.wire import Form, encode

REFUSALS = (400, 413, 422, 500)  # 500: a model that fails on all rows of a request, which may have only one

TOO_LARGE = "REQUEST_LIMIT_EXCEEDED"
Post = Callable[[bytes], Response]
"""Sends a JSON body and returns the response."""
Call = Callable[[Batch], object]
"""The predictions for a batch, or RefusedRow; raises LikewiseError if the backend itself fails."""


def predict_by_calls(comparison: Comparison, call: Call) -> None:
    """Predict all batches.  If one with several rows is refused, its rows are predicted singly, to find the bad one.

    A model whose rows depend on each other has no such second try.
    """
    for batch in comparison.batches():
        start = time.monotonic()
        predictions = call(batch)
        comparison.latencies.append(time.monotonic() - start)
        values = by_item(predictions, batch)
        if isinstance(predictions, RefusedRow) and comparison.row_wise and len(batch) > 1:
            single = [by_item(call(each), each)[0] for each in batch.single()]
            if any(isinstance(value, RefusedRow) for value in single) or predictions.code == TOO_LARGE:
                values = single  # else the rows are only refused together
        comparison.answered(batch.indices, values)


def predict_by_requests(comparison: Comparison, post: Post, where: str) -> None:
    """Predict all batches through MLflow 3's protocol.  where: the backend, for messages."""
    labels = _labels(comparison.signature)
    tensors = comparison.signature.is_tensor
    predict_by_calls(comparison, lambda batch: _predictions(post(body(batch, labels, tensors)), where))


def body(batch: Batch, labels: Mapping[str, object], tensors: bool) -> bytes:
    """The JSON of an MLflow 3 request.

    labels: the names of columns that are numbers in the signature, which MLflow does not take as text.  tensors:
    whether the inputs are named tensors, which MLflow does not take as a data frame of lists.
    """
    table, params = batch.request.table, batch.request.params
    rest = {"params": params} if params else {}
    if (sent := table.sent) is not None:
        if sent.form == "document" and isinstance(sent.value, Mapping):
            return encode(Form.DOCUMENT, {**sent.value, **(params or {})})
        return encode(Form.DOCUMENT, {sent.form: sent.value, **rest})
    if table.columns is None:
        return encode(Form.DOCUMENT, {"inputs": [row[0] for row in table.rows], **rest})
    if tensors:
        records = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        return encode(Form.DOCUMENT, {"instances": records, **rest})
    columns = [labels.get(name, name) for name in table.columns]
    split = {"columns": columns, "data": [list(row) for row in table.rows]}
    document = {"dataframe_split": split, **rest}
    if any(type(value) is float and math.isnan(value) for row in table.rows for value in row):
        return json.dumps(document, default=json_form).encode()  # NaN of a model without a signature is not null
    return encode(Form.DOCUMENT, document)


def _labels(signature: Signature) -> dict[str, object]:
    named = {field.name: field.raw["name"] for field in signature.inputs or () if field.name is not None}
    return {name: label for name, label in named.items() if label != name}


def _predictions(response: Response, where: str) -> object:
    """The predictions in a response, or RefusedRow; DeployFailed for any other response."""
    try:
        document = json.loads(response.body, parse_constant=lambda _: None)  # MLflow writes NaN where others write null
    except (ValueError, RecursionError) as error:
        raise _unexpected_response(response, where) from error
    if response.status == 200:
        return predictions_in(document)
    if response.status in REFUSALS and isinstance(document, dict) and "error_code" in document:
        return RefusedRow(str(document["error_code"]), str(document.get("message", ""))[:300])
    raise _unexpected_response(response, where)


def _unexpected_response(response: Response, where: str) -> DeployFailed:
    text = response.body[:300].decode(errors="replace")
    return DeployFailed(
        f"{where} responded with status {response.status}: {text}", remedy="check that it is ready, then verify again"
    )
