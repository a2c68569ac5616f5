"""Measures one call on its way through the data plane, for callers that pass a `Timing`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from likewise.dataplane.calls import QueueEntry

MOST = 128  # windows that a timing names


@dataclass(eq=False, slots=True)
class Window:
    """A run of the engine.  started, ended: by `time.perf_counter`.  error: its code, if the run had no results.

    padded: number of items times the largest cost.  span: for the caller, which may keep the window's span in it.
    """

    started: float
    ended: float
    items: int
    tokens: int
    padded: int
    error: str = ""
    span: object = None


@dataclass(eq=False, slots=True)
class Timing:
    """What was measured of a call, or of several for the same request.  Times by `time.perf_counter`, (0, 0) for none.

    queued: from when to when the item waited that waited longest.  engine: from the start of the first window to the
    end of the last.  windows: the first MOST; runs: their number.  items, tokens: computed in them for this call.
    hits, misses, shared: items of a pure engine that were cached, were not, or joined equal ones in flight.
    """

    queued: tuple[float, float] = (0.0, 0.0)
    engine: tuple[float, float] = (0.0, 0.0)
    windows: list[Window] = field(default_factory=list)
    runs: int = 0
    items: int = 0
    tokens: int = 0
    hits: int = 0
    misses: int = 0
    shared: int = 0

    def looked_up(self, hits: int, misses: int, shared: int) -> None:
        """Items of a pure engine were looked up in the cache and among those in flight."""
        self.hits += hits
        self.misses += misses
        self.shared += shared

    def ran(self, window: Window, submitted: float, tokens: int) -> None:
        """An item that was submitted at this time has been computed."""
        started = max(window.started, submitted)  # earlier, if the item joined one that was being computed
        if started - submitted >= self.queued[1] - self.queued[0]:
            self.queued = submitted, started
        self.engine = min(self.engine[0] or started, started), max(self.engine[1], window.ended)
        self.items += 1
        self.tokens += tokens
        if not self.windows or self.windows[-1] is not window:
            self.runs += 1
            if self.runs <= MOST:
                self.windows.append(window)


def measure(entries: Sequence[QueueEntry], started: float, error: str = "") -> None:
    """Inform the timings of the calls that wait for `entries` about their run, which has just ended."""
    costs = [entry.cost for entry in entries]
    window = Window(started, time.perf_counter(), len(costs), sum(costs), len(costs) * max(costs), error)
    for entry in entries:
        for call in dict.fromkeys(call for call, _ in entry.waiters):  # equal rows of a call wait for one entry
            if call.timing is not None:
                call.timing.ran(window, call.submitted, entry.cost)
