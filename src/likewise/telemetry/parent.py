"""The header `traceparent`, by which a caller's trace continues.  Source: W3C Trace Context, section 3.2."""

from __future__ import annotations

import re
from typing import NamedTuple

_VALID = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Parent(NamedTuple):
    """A span of the caller.  Ids in hexadecimal digits: 32 of the trace, 16 of the span."""

    trace_id: str
    span_id: str
    sampled: bool

    @classmethod
    def of(cls, traceparent: str | None) -> Parent | None:
        """The parent that a header names, or None if it is missing or invalid."""
        if traceparent is None or (match := _VALID.fullmatch(traceparent)) is None:
            return None
        return cls(match[1], match[2], bool(int(match[3], 16) & 1))
