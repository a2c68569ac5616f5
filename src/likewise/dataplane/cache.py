"""Answers of a pure engine, least recently used out first."""

from __future__ import annotations

import marshal
from collections import OrderedDict
from typing import Any

from likewise.core.results import Ok

OVERHEAD = 300  # bytes of a key, an Ok, the table's own slots


class AnswerCache:
    """At most about `limit` bytes of answers by `item_key`; 0 keeps none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[bytes, tuple[Ok, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> Ok | None:
        """The answer, which is then the most recently used."""
        found = self._held.get(key)
        if found is None:
            return None
        self._held.move_to_end(key)
        return found[0]

    def put(self, key: bytes, result: Ok) -> None:
        """Keep it, where it fits."""
        size = OVERHEAD + _size(result.value)
        if size > self._limit:
            return
        self._bytes += size - self._held.pop(key, (None, 0))[1]
        self._held[key] = (result, size)
        while self._bytes > self._limit:
            self._bytes -= self._held.popitem(last=False)[1][1]


def _size(value: Any) -> int:
    try:
        return 2 * len(marshal.dumps(value, 2))  # objects take about twice their bare bytes
    except ValueError:
        return 4 * len(repr(value))
