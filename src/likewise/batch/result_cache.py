"""Answers of rows that were scored, so that an equal row later in the job is not scored again."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable

from likewise.core.results import Ok

LIMIT = 64 << 20  # bytes
ENTRY = 220  # bytes that Python takes for an entry beside its text
ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class ResultCache:
    """Answers by `Work.key`, the oldest out first where they pass `limit` bytes.

    What is kept depends on the order of what was put alone, so that `replay` of the same lines brings the same state
    back.  An answer that JSON does not hold exactly (a date, bytes, a tuple) is not kept.
    """

    def __init__(self, limit: int | None = None, log: Callable[[bytes], object] | None = None) -> None:
        """limit: LIMIT by default. log: gets a line for every answer that is kept, for `replay`."""
        self._limit = LIMIT if limit is None else limit
        self._log = log
        self._texts: OrderedDict[bytes, bytes] = OrderedDict()  # whose first entry is found at once, unlike a dict's
        self._size = 0

    def get(self, key: str) -> Ok | None:
        """The answer of an equal row."""
        text = self._texts.get(_digest(key))
        return None if text is None else Ok(json.loads(text))

    def put(self, key: str, value: object) -> None:
        """Keep the answer of a row that `get` did not know."""
        if (text := _encoded(value)) is None:
            return
        digest = _digest(key)
        if self._keep(digest, text) and self._log:
            self._log(digest.hex().encode() + b" " + text + b"\n")

    def replay(self, lines: Iterable[bytes]) -> None:
        """Put what `log` was given."""
        for line in lines:
            digest, _, text = line.rstrip(b"\n").partition(b" ")
            self._keep(bytes.fromhex(digest.decode()), text)

    def _keep(self, digest: bytes, text: bytes) -> bool:
        if weight(text) > self._limit:
            return False
        self._texts[digest] = text
        self._size += weight(text)
        while self._size > self._limit:
            self._size -= weight(self._texts.popitem(last=False)[1])
        return True


def weight(text: bytes) -> int:
    """Bytes that an answer is counted with."""
    return len(text) + ENTRY


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()


def _encoded(value: object) -> bytes | None:
    """JSON that gives this very value back, or None."""
    try:
        return ENCODE(value).encode() if _is_json(value) else None
    except (ValueError, RecursionError):  # integers of thousands of digits, nesting without end
        return None


def _is_json(value: object) -> bool:
    if type(value) is dict:
        return all(type(key) is str and _is_json(member) for key, member in value.items())
    if type(value) is list:
        return all(map(_is_json, value))
    return value is None or type(value) in (str, int, float, bool)
