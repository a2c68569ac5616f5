"""Requests to a worker: items that cannot be sent, and answers that cannot be read, fail alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from likewise.core.errors import LikewiseError, ModelFailed, RowRefused
from likewise.core.isolation import describe
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.workers.messages import pack, sendable, unpack

Answers = list[tuple[int, Result]]
"""For each item its cost, 0 if it was not prepared, and its result."""

Counted = Mapping[str, int]
"""Numbers by name, see `core.engine.counters`."""


def send_items(
    send: Callable[[bytes], bytes], items: Sequence[Item], count: Callable[[Counted], None] = lambda _: None
) -> Answers:
    """The answers of a worker to `items`; raises what `send` raises.

    count: called with what its engine has counted since its last answers.
    """
    if not items:
        return []
    try:
        message = pack(list(items))
    except Exception:  # noqa: BLE001  some value cannot be packed: find out which
        checked = sendable(items, _unsendable)
        valid = [entry for entry in checked if not isinstance(entry, Failed)]
        found = iter(_answers(send(pack(valid)), len(valid), count) if valid else [])
        return [(0, entry) if isinstance(entry, Failed) else next(found) for entry in checked]
    return _answers(send(message), len(items), count)


def _answers(response: bytes, items: int, count: Callable[[Counted], None]) -> Answers:
    try:
        found = unpack(response)
    except Exception as error:  # noqa: BLE001  a value's own unpickling may raise anything
        found = ModelFailed(
            f"the worker's response cannot be read: {type(error).__name__}: {describe(error)}",
            remedy="let the model return plain values, or serve it with --in-process",
        )
    if isinstance(found, LikewiseError):
        return [(0, Failed(found))] * items
    answers, counted = cast("tuple[Answers, Counted]", found)
    count(counted)
    return answers


def _unsendable(why: str) -> RowRefused:
    return RowRefused(f"the row cannot be sent to a worker: {why}", remedy="send plain values: JSON types or bytes")
