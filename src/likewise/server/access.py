"""The access log: one JSON line per request, without the content of requests and responses."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import IO

import orjson

from likewise.dataplane import DaemonThread
from likewise.telemetry import Parent

MAX_BUFFERED = 50_000  # lines
CLOSE_S = 0.5
CLIENT_CLOSED_REQUEST = 499  # status in the log and the metrics if the client disconnected before the response
FLUSH_S = 0.1  # lines are written in batches: one write per line would cost as much as a cached response


class AccessLog:
    """Writes lines to `stream` (default stderr) within FLUSH_S, in a thread because its reader may be slow or stuck.

    While MAX_BUFFERED lines are unwritten, new ones are dropped; the next line written reports how many were lost, also
    of those that could not be written.  on_lost: called with the number of lines, in any thread.
    """

    def __init__(self, stream: IO[str] | None = None, on_lost: Callable[[int], None] = lambda _: None) -> None:
        self._stream = stream or sys.stderr
        self._lines: list[dict[str, object]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._thread = DaemonThread("likewise-access-log")
        self._on_lost = on_lost
        self._added = 0  # changed on the loop only
        self._done = 0  # of these: written, or failed to be; changed in the thread only
        self._dropped = 0
        self._failed = 0

    def add(self, line: dict[str, object]) -> None:
        """Queue one line; must be called on an event loop."""
        if self._added - self._done >= MAX_BUFFERED:
            self._dropped += 1
            self._on_lost(1)
            return
        self._added += 1
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    async def close(self) -> None:
        """Write the buffered lines, waiting at most CLOSE_S for a stuck reader."""
        self._flush()
        done = self._thread.submit(int)
        await asyncio.wait((asyncio.wrap_future(done),), timeout=CLOSE_S)
        self._thread.shutdown()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        dropped, self._dropped = self._dropped, 0
        self._thread.post(partial(self._write, lines, dropped))

    def _write(self, lines: list[dict[str, object]], dropped: int) -> None:
        text = "".join(orjson.dumps(line).decode() + "\n" for line in lines)
        if lost := dropped + self._failed:
            text += orjson.dumps({"time": now(), "lines_lost": lost}).decode() + "\n"
        try:
            self._stream.write(text)
            self._stream.flush()
            self._failed = 0
        except (OSError, ValueError):  # the log's reader has gone, or the disk is full; keep serving requests
            self._failed = lost + len(lines)
            self._on_lost(len(lines))
        self._done += len(lines)


def trace_of(traceparent: str | None) -> str | None:
    """The trace id of a `traceparent` header, or None if it is missing or invalid."""
    parent = Parent.of(traceparent)
    return parent.trace_id if parent else None


def now() -> float:
    """Unix time in seconds, to the millisecond."""
    return round(time.time(), 3)
