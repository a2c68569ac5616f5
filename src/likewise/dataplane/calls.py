"""Pending calls of the data plane, their distinct items, and the queue of these items."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import TYPE_CHECKING

from likewise.core.engine import Work
from likewise.core.items import Item
from likewise.core.results import Result
from likewise.core.windows import windows

if TYPE_CHECKING:
    from likewise.dataplane.timing import Timing

CANDIDATES = 512  # most entries considered for a window, which keeps long queues cheap
LOOKAHEAD = 4  # token budgets' worth of entries that are grouped by similar cost


class PendingCall:
    """The items of one call; `done` resolves to their results, in order, when all of them are available.

    timing: measures the call, if it is to be measured; submitted: by `time.perf_counter`.
    """

    def __init__(self, count: int, timing: Timing | None = None, submitted: float = 0.0) -> None:
        self.timing = timing
        self.submitted = submitted
        self.entries: list[QueueEntry] = []
        self.missing = count
        self.done: asyncio.Future[list[Result]] | None = None  # created only if the caller has to wait
        self._results: list[Result | None] = [None] * count

    @property
    def results(self) -> list[Result]:
        """The results available so far; all of them when `missing` is 0."""
        return [result for result in self._results if result is not None]

    def settle(self, index: int, result: Result) -> None:
        """Set the result of the item at `index`."""
        self._results[index] = result
        self.missing -= 1
        if self.missing == 0 and self.done is not None and not self.done.done():
            self.done.set_result(self.results)


@dataclass(eq=False, slots=True)
class QueueEntry:
    """One distinct item in flight, and the calls that wait for it.

    Without `work` it waits to be prepared and `cost` is an estimate; with `work` it waits to be run.
    """

    item: Item
    key: bytes | None
    arrived: float
    cost: int
    work: Work | None = None
    waiters: list[tuple[PendingCall, int]] = field(default_factory=list)

    def leave(self, call: PendingCall) -> bool:
        """Remove `call` from the waiters; returns whether any are left."""
        self.waiters = [waiter for waiter in self.waiters if waiter[0] is not call]
        return bool(self.waiters)


class EntryQueue:
    """A queue of entries in order of arrival, with cheap removal at any position."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, QueueEntry] = OrderedDict()
        self._windows: deque[list[QueueEntry]] = deque()  # remaining windows of the current generation
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: QueueEntry) -> None:
        """Append an entry."""
        self._entries[id(entry)] = entry
        self.tokens += entry.cost

    def drop(self, entry: QueueEntry) -> bool:
        """Remove an entry; returns whether it was in the queue."""
        present = self._entries.pop(id(entry), None) is not None
        self.tokens -= entry.cost if present else 0
        return present

    def take(self, count: int, budget: int | None = None) -> list[QueueEntry]:
        """Take the oldest entries: at most `count`, with a total cost within `budget`, but at least one."""
        return self._remove(self._oldest(count, budget))

    def take_window(self, budget: int) -> list[QueueEntry]:
        """Take entries of similar cost that together fit into `budget` padded tokens.

        The oldest LOOKAHEAD budgets of tokens form a generation, which is divided into windows; all of them are taken
        before the next generation is formed.  So at most T + LOOKAHEAD * budget tokens are processed before an entry
        that had T tokens ahead of it on arrival, regardless of later arrivals.
        """
        while True:
            if not self._windows:
                self._windows.extend(self._generation(budget))
            window = [entry for entry in self._windows.popleft() if id(entry) in self._entries]
            if window:
                return self._remove(window)

    def _generation(self, budget: int) -> list[list[QueueEntry]]:
        """The windows of the oldest entries, starting with the window of the oldest entry."""
        oldest = self._oldest(CANDIDATES, budget * LOOKAHEAD)
        costs = [entry.cost for entry in oldest]
        if len(costs) * max(costs) <= budget:
            return [oldest]
        return [[oldest[i] for i in sorted(group)] for group in sorted(windows(costs, budget), key=min)]

    def _oldest(self, count: int, tokens: int | None) -> list[QueueEntry]:
        first = list(islice(self._entries.values(), count))
        if tokens is None:
            return first
        fitting = sum(total <= tokens for total in accumulate(entry.cost for entry in first))
        return first[: max(1, fitting)]

    def _remove(self, entries: list[QueueEntry]) -> list[QueueEntry]:
        for entry in entries:
            self.drop(entry)
        return entries
