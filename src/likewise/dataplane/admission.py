"""Admission control: a call is accepted if its results are expected in time and the queue is not full."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from likewise.core.engine import EngineSpec
from likewise.core.errors import Overloaded
from likewise.dataplane.calls import LOOKAHEAD
from likewise.dataplane.cost import CostModel

SAFETY = 0.9  # fraction of the deadline, because the predicted time is only an estimate
MIN_RUNS = 4  # before the queueing time is estimated
LARGE = 4  # a run of at least 1/LARGE of the budget is large


class Rejection(NamedTuple):
    """Why a call is rejected.  reason: `deadline` or `queue`."""

    reason: str
    error: Overloaded


class Admission:
    """Predicts when a call would be completed, from the queue, the current runs, and the durations of past runs."""

    def __init__(
        self, spec: EngineSpec, *, slots: int, deadline_s: float, queue_tokens: int, run_timeout_s: float = 0.0
    ) -> None:
        self.model = CostModel()
        self._alone = not spec.row_wise
        self._budget = max(1, spec.budget)
        self._slots = slots
        self._limit_s = deadline_s * SAFETY
        self._deadline_s = deadline_s
        self._queue_tokens = queue_tokens
        self._run_timeout_s = run_timeout_s or inf
        self._running: dict[object, tuple[float, float]] = {}  # start time, expected seconds

    @property
    def guess(self) -> int:
        """The estimated cost of an item that is not prepared yet."""
        return max(1, round(self.model.mean_cost))

    def run_started(self, run: object, tokens: int, now: float) -> None:
        """Record the start of a run."""
        self._running[run] = now, self.model.seconds(tokens, 1)

    def run_finished(self, run: object) -> None:
        """Record the end of a run."""
        self._running.pop(run)

    def learn(self, started: float, tokens: int, now: float) -> None:
        """Learn from the duration of a run that has returned."""
        self.model.learn(tokens, now - started)

    def predict(self, tokens: float, items: int, now: float) -> float:
        """Expected seconds until `items` with `tokens` in total are completed, after the current runs.

        A run that exceeds its expected duration is expected to take as long again, up to the run time-out.
        """
        left = 0.0
        for started, takes in self._running.values():
            elapsed = now - started
            left += takes - elapsed if elapsed < takes else max(0.0, min(elapsed, self._run_timeout_s - elapsed))
        if self._can_estimate():
            left += self.model.seconds(tokens, items if self._alone else tokens / self._budget)
        return left / self._slots

    def _can_estimate(self) -> bool:
        """Whether the past runs suffice to estimate a long queue: MIN_RUNS of them, one of them large.

        A model's first runs are its slowest and smallest, while a long queue leads to large runs.
        """
        large = self._alone or self.model.largest * LARGE >= self._budget
        return self.model.runs >= MIN_RUNS and large

    def rejection(self, *, waiting: tuple[int, int], new: tuple[int, int], now: float) -> Rejection | None:
        """Why a call with `new` (items, tokens) may not join the `waiting` ones; None if it may.

        An idle engine accepts any call, since rejecting it would gain nothing.
        """
        if not self._running and not waiting[0]:
            return None
        items, tokens = waiting[0] + new[0], waiting[1] + new[1]
        overtaking = 0 if self._alone else min(waiting[1], LOOKAHEAD * self._budget)
        finish = self.predict(tokens + overtaking, items, now)
        if finish > self._limit_s:
            limit = f"{SAFETY:.0%} of the deadline of {self._deadline_s:g} s"
            cause = f"the prediction would take about {finish:.1f} s, more than {limit}"
            return Rejection("deadline", _overloaded(cause, finish - self._limit_s))
        if tokens > self._queue_tokens:
            cause = f"{waiting[1]:,} tokens are waiting; the limit is {self._queue_tokens:,}"
            return Rejection("queue", _overloaded(cause, self.predict(tokens - self._queue_tokens, new[0], now)))
        return None


def _overloaded(cause: str, seconds: float) -> Overloaded:
    error = Overloaded(
        cause, remedy="retry after the time in Retry-After, with fewer rows per request, or on another server"
    )
    error.retry_after_s = max(1.0, seconds)
    return error
