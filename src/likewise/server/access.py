"""The access log: one JSON line a request, without what was asked or answered."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from dataclasses import asdict, dataclass
from typing import IO

import orjson

FLUSH_S = 0.1  # lines go out together: a write a line would cost as much as a cached answer

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


@dataclass(frozen=True, slots=True)
class Line:
    """time: seconds since 1970. route: the template, never the path's own words. seconds: to the answer's last byte."""

    time: float
    request_id: str
    method: str
    route: str
    status: int
    seconds: float
    bytes_out: int
    client: str | None
    trace_id: str | None


class AccessLog:
    """Writes lines to `stream` (stderr), at the latest FLUSH_S after each."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lines: list[Line] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, line: Line) -> None:
        """On an event loop."""
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Write what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        try:
            self._stream.write("".join(orjson.dumps(asdict(line)).decode() + "\n" for line in lines))
            self._stream.flush()
        except (OSError, ValueError):
            pass  # whoever read the log has gone: requests are answered all the same


def trace_of(traceparent: str | None) -> tuple[str, str] | None:
    """Trace id and parent id of a `traceparent` header, None where it is not one.  Source: W3C Trace Context, 3.2."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    if found is None or (traceparent or "").startswith("ff") or set(found[1]) == {"0"} or set(found[2]) == {"0"}:
        return None
    return found[1], found[2]


def now() -> float:
    """Wall clock."""
    return round(time.time(), 3)
