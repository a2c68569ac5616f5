"""The engine's current runs, and those that take longer than the run time-out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from likewise.dataplane.calls import QueueEntry
from likewise.dataplane.thread import Thread


@dataclass(eq=False, slots=True)
class Run:
    """One run. started: by the loop's clock.  overdue: whether it has taken longer than the time-out.

    began: by `time.perf_counter`, because the loop's clock may have a resolution of a millisecond.
    """

    entries: list[QueueEntry]
    started: float
    began: float
    overdue: bool = False


class CurrentRuns:
    """The runs by their threads; `on_overdue` is called once with each that exceeds the time-out, which goes on.

    timeout_s: 0 for no limit.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float, on_overdue: Callable[[Run], None]) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._on_overdue = on_overdue
        self._runs: dict[Thread, Run] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def overdue(self) -> int:
        """Number of current runs that have exceeded the time-out."""
        return sum(run.overdue for run in self._runs.values())

    def begin(self, thread: Thread, entries: list[QueueEntry]) -> None:
        """Record the start of a run."""
        self._runs[thread] = Run(entries, self._loop.time(), time.perf_counter())
        if self._timeout_s and self._timer is None:  # one timer for all runs
            self._timer = self._loop.call_later(self._timeout_s, self._check)

    def end(self, thread: Thread) -> Run:
        """Record the end of a run."""
        return self._runs.pop(thread)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer, now = None, self._loop.time()
        for run in [run for run in self._runs.values() if not run.overdue and now - run.started >= self._timeout_s]:
            run.overdue = True
            self._on_overdue(run)
        if left := [run.started for run in self._runs.values() if not run.overdue]:
            self._timer = self._loop.call_later(max(0.0, min(left) + self._timeout_s - now), self._check)
