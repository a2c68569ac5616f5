"""LRU cache for the results of a pure engine."""

from __future__ import annotations

import pickle
from collections import OrderedDict

from likewise.core.results import Ok

OVERHEAD = 250  # bytes per entry for the key, the bytes object, and the dict slot


class ResultCache:
    """Results by `item_key`, about `limit` bytes at most; 0 disables the cache.

    Results are stored as bytes: with hundreds of thousands of objects, each garbage collection would block the event
    loop for about 0.1 s.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> Ok | None:
        """The cached result, which becomes the most recently used, or None."""
        packed = self._entries.get(key)
        if packed is None:
            return None
        self._entries.move_to_end(key)
        return Ok(pickle.loads(packed))  # noqa: S301  written by `put`

    def put(self, key: bytes, result: Ok) -> None:
        """Cache a result, unless it is larger than the whole cache."""
        packed = pickle.dumps(result.value, pickle.HIGHEST_PROTOCOL)
        if OVERHEAD + len(packed) > self._limit:
            return
        before = self._entries.pop(key, None)
        self._bytes += OVERHEAD + len(packed) - (OVERHEAD + len(before) if before is not None else 0)
        self._entries[key] = packed
        while self._bytes > self._limit:
            _, gone = self._entries.popitem(last=False)
            self._bytes -= OVERHEAD + len(gone)
