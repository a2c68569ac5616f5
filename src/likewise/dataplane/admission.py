"""Who is let in: those whose answer will come in time, and for whom there is room."""

from __future__ import annotations

from typing import NamedTuple

from likewise.core.engine import EngineSpec
from likewise.core.errors import Overloaded
from likewise.dataplane.calls import LOOKAHEAD
from likewise.dataplane.cost import CostModel

SAFETY = 0.9  # of the deadline: predictions are not promises
FEW = 4  # runs
LARGE = 4  # a run of this part of the budget is large


class Refusal(NamedTuple):
    """reason: `deadline` or `queue`."""

    reason: str
    error: Overloaded


class Admission:
    """Predicts when a call would be answered, from what waits, what runs, and how long runs have taken so far."""

    def __init__(self, spec: EngineSpec, *, slots: int, deadline_s: float, queue_tokens: int) -> None:
        self.model = CostModel()
        self._alone = not spec.row_wise
        self._budget = max(1, spec.budget)
        self._slots = slots
        self._limit_s = deadline_s * SAFETY
        self._deadline_s = deadline_s
        self._queue_tokens = queue_tokens
        self._running: dict[object, tuple[float, float]] = {}  # when it began, how long it should take

    @property
    def guess(self) -> int:
        """The cost of an item that is not prepared yet."""
        return max(1, round(self.model.mean_cost))

    def began(self, run: object, tokens: int, now: float) -> None:
        """A run of so many tokens began."""
        self._running[run] = now, self.model.seconds(tokens, 1)

    def ended(self, run: object, tokens: int, now: float) -> float:
        """It ended; returns when it began."""
        began, _ = self._running.pop(run)
        self.model.learn(tokens, now - began)
        return began

    def predict(self, tokens: float, items: int, now: float) -> float:
        """Seconds until so many tokens of so many items are answered, after what runs now.

        A run that takes longer than it should is expected to take as long again.
        """
        left = 0.0
        for began, takes in self._running.values():
            elapsed = now - began
            left += takes - elapsed if elapsed < takes else elapsed
        if self._knows():
            left += self.model.seconds(tokens, items if self._alone else tokens / self._budget)
        return left / self._slots

    def _knows(self) -> bool:
        """Whether runs have been seen from which a long queue can be judged: a few, and one of some size.

        The first runs of a model are its slowest, and its smallest; a queue that grows long brings large ones.
        """
        large = self._alone or self.model.largest * LARGE >= self._budget
        return self.model.runs >= FEW and large

    def refusal(self, *, waiting: tuple[int, int], new: tuple[int, int], now: float) -> Refusal | None:
        """Why a call with `new` (items, tokens) may not join those that are `waiting`; None where it may.

        An idle engine takes any call: nothing would be gained by sending it away.
        """
        if not self._running and not waiting[0]:
            return None
        items, tokens = waiting[0] + new[0], waiting[1] + new[1]
        overtaking = 0 if self._alone else min(waiting[1], LOOKAHEAD * self._budget)
        finish = self.predict(tokens + overtaking, items, now)
        if finish > self._limit_s:
            what = f"the answer would take about {finish:.1f} s, and {self._deadline_s:g} s are allowed"
            return Refusal("deadline", _overloaded(what, finish - self._limit_s))
        if tokens > self._queue_tokens:
            what = f"{waiting[1]:,} tokens are waiting, and {self._queue_tokens:,} may"
            return Refusal("queue", _overloaded(what, self.predict(tokens - self._queue_tokens, new[0], now)))
        return None


def _overloaded(what: str, seconds: float) -> Overloaded:
    error = Overloaded(
        what, remedy="send the request again after Retry-After, with fewer rows a request, or to another server"
    )
    error.retry_after_s = max(1.0, seconds)
    return error
