"""A cache of predictions, so that a row equal to an earlier one of the same job is not scored again."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable

from likewise.core.results import Ok

LIMIT = 64 << 20  # bytes of cached predictions
ENTRY = 220  # bytes of memory per entry in addition to its text
ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class RowResultCache:
    """Predictions by `Work.key`. Above `limit` bytes the oldest entries are evicted first.

    The content depends only on the order of insertions, so that `replay` of the same lines restores the same state.
    Predictions that JSON cannot represent exactly (dates, bytes, tuples) are not cached.
    """

    def __init__(self, limit: int | None = None, log: Callable[[bytes], object] | None = None) -> None:
        """limit: LIMIT by default. log: called with a line for every cached prediction, for `replay`."""
        self._limit = LIMIT if limit is None else limit
        self._log = log
        self._texts: OrderedDict[bytes, bytes] = OrderedDict()  # removes its first entry in O(1), unlike a dict
        self._size = 0

    def get(self, key: str) -> Ok | None:
        """The prediction of an equal row, None if it is not cached."""
        text = self._texts.get(_digest(key))
        return None if text is None else Ok(json.loads(text))

    def put(self, key: str, value: object) -> None:
        """Cache the prediction of a row for which `get` returned None."""
        if (text := exact_json(value)) is None:
            return
        digest = _digest(key)
        if self._store(digest, text) and self._log:
            self._log(digest.hex().encode() + b" " + text + b"\n")

    def replay(self, lines: Iterable[bytes]) -> None:
        """Insert the predictions in the lines that `log` was called with."""
        for line in lines:
            digest, _, text = line.rstrip(b"\n").partition(b" ")
            self._store(bytes.fromhex(digest.decode()), text)

    def _store(self, digest: bytes, text: bytes) -> bool:
        """Whether the entry was stored: one larger than the limit is not."""
        if weight(text) > self._limit:
            return False
        self._texts[digest] = text
        self._size += weight(text)
        while self._size > self._limit:
            self._size -= weight(self._texts.popitem(last=False)[1])
        return True


def weight(text: bytes) -> int:
    """The bytes that a prediction counts towards the limit. text: its JSON."""
    return len(text) + ENTRY


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()


def exact_json(value: object) -> bytes | None:
    """The value as JSON; None if JSON does not represent it exactly."""
    try:
        return ENCODE(value).encode() if _is_json(value) else None
    except (ValueError, RecursionError):  # integers with thousands of digits, very deep nesting
        return None


def _is_json(value: object) -> bool:
    if type(value) is dict:
        return all(type(key) is str and _is_json(member) for key, member in value.items())
    if type(value) is list:
        return all(map(_is_json, value))
    return value is None or type(value) in (str, int, float, bool)
