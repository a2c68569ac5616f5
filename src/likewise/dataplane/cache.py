"""Answers of a pure engine, least recently used out first."""

from __future__ import annotations

import pickle
from collections import OrderedDict

from likewise.core.results import Ok

OVERHEAD = 250  # bytes of a key, of the bytes object beside it, and of their place in the table


class AnswerCache:
    """At most about `limit` bytes of answers by `item_key`; 0 keeps none.

    Answers are kept as bytes: hundreds of thousands of records would make each of Python's garbage collections stop
    the event loop for a tenth of a second.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> Ok | None:
        """The answer, which is then the most recently used."""
        found = self._held.get(key)
        if found is None:
            return None
        self._held.move_to_end(key)
        return Ok(pickle.loads(found))  # noqa: S301  `put` made it

    def put(self, key: bytes, result: Ok) -> None:
        """Keep it, where it fits."""
        packed = pickle.dumps(result.value, pickle.HIGHEST_PROTOCOL)
        if OVERHEAD + len(packed) > self._limit:
            return
        before = self._held.pop(key, None)
        self._bytes += OVERHEAD + len(packed) - (OVERHEAD + len(before) if before is not None else 0)
        self._held[key] = packed
        while self._bytes > self._limit:
            _, gone = self._held.popitem(last=False)
            self._bytes -= OVERHEAD + len(gone)
