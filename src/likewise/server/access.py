"""The access log: one JSON line a request, without what was asked or answered."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from functools import partial
from typing import IO

import orjson

from likewise.dataplane import DaemonThread

KEPT = 50_000  # lines
CLOSE_S = 1.0
FLUSH_S = 0.1  # lines go out together: a write a line would cost as much as a cached answer

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class AccessLog:
    """Writes lines to `stream` (stderr), at the latest FLUSH_S after each, in a thread: a reader may be slow or stuck.

    Where KEPT lines wait for it, further ones are thrown away, and counted in the next line that gets through.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lines: list[dict[str, object]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._thread = DaemonThread("likewise-access-log")
        self._unwritten = 0
        self._lost = 0

    def add(self, line: dict[str, object]) -> None:
        """On an event loop."""
        if self._unwritten >= KEPT:
            self._lost += 1
            return
        self._unwritten += 1
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._hand_over)

    async def close(self) -> None:
        """Write what there is; a reader that is stuck is waited for no longer than CLOSE_S."""
        self._hand_over()
        done = self._thread.submit(int)
        await asyncio.wait((asyncio.wrap_future(done),), timeout=CLOSE_S)
        self._thread.shutdown()

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        lost, self._lost = self._lost, 0
        self._thread.post(partial(self._write, lines, lost))

    def _write(self, lines: list[dict[str, object]], lost: int) -> None:
        text = "".join(orjson.dumps(line).decode() + "\n" for line in lines)
        if lost:
            text += orjson.dumps({"time": now(), "lines_lost": lost}).decode() + "\n"
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # whoever read the log has gone: requests are answered all the same
        self._unwritten -= len(lines)


def trace_of(traceparent: str | None) -> str | None:
    """The trace id of a `traceparent` header, None where it is not one.  Source: W3C Trace Context, 3.2."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return found[1] if found else None


def now() -> float:
    """Wall clock."""
    return round(time.time(), 3)
