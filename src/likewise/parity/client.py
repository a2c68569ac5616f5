"""A golden set through anything that takes request bodies, one answer a row."""

from __future__ import annotations

import json
from collections.abc import Callable

from likewise.core.errors import DeployFailed
from likewise.parity.compare import RefusedRow
from likewise.parity.golden import Golden
from likewise.targets.base import Answer

ROWS = 64  # of a request
REFUSALS = (400, 422, 500)  # 500: a model that fails on every row of a request, which may be the only one


Post = Callable[[bytes], Answer]


def by_request(golden: Golden, post: Post, where: str, row_wise: bool) -> list[object]:
    """Each row's answer; where a request of several is refused, each row is asked alone.

    Of a model whose rows depend on each other: one request, answered as a whole.  DeployFailed where the place itself
    has failed.
    """
    if not row_wise:
        return in_rows(_answer(post(golden.body(0, len(golden))), where), len(golden))
    found: list[object] = []
    for first in range(0, len(golden), ROWS):
        count = min(ROWS, len(golden) - first)
        answers = in_rows(_answer(post(golden.body(first, count)), where), count)
        if count > 1 and len(answers) == 1:  # refused, or answered as a whole
            alone = [_answer(post(golden.body(first + row, 1)), where) for row in range(count)]
            answers = [in_rows(each, 1)[0] for each in alone]
        found += answers
    return found


def in_rows(predictions: object, count: int) -> list[object]:
    """One prediction a row where there are so many, else all of it as one."""
    return predictions if isinstance(predictions, list) and len(predictions) == count else [predictions]


def _answer(reply: Answer, where: str) -> object:
    """The predictions, or that they were refused."""
    try:
        said = json.loads(reply.body, parse_constant=lambda _: None)  # MLflow writes NaN; null says the same
    except ValueError as error:
        raise _not_a_model(reply, where) from error
    if reply.status == 200:
        return said["predictions"] if isinstance(said, dict) and "predictions" in said else said
    if reply.status in REFUSALS and isinstance(said, dict) and "error_code" in said:
        return RefusedRow(str(said["error_code"]))
    raise _not_a_model(reply, where)


def _not_a_model(reply: Answer, where: str) -> DeployFailed:
    text = reply.body[:300].decode(errors="replace")
    return DeployFailed(f"{where} answered {reply.status}: {text}", remedy="see that it answers, then verify again")
