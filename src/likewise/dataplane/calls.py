"""What waits in the data plane: calls, their distinct items, and the queue of those."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import accumulate, islice

from likewise.core.engine import Work
from likewise.core.items import Item
from likewise.core.results import Result
from likewise.core.windows import windows

CANDIDATES = 512  # entries that one window is chosen among, so that a long queue stays cheap
LOOKAHEAD = 4  # budgets of tokens among which near-equal costs are looked for


class PendingCall:
    """One caller's items; `done` holds their results, in order, once each has one."""

    def __init__(self, count: int) -> None:
        self.entries: list[QueueEntry] = []
        self.missing = count
        self.done: asyncio.Future[list[Result]] | None = None  # made by whoever has to wait
        self._results: list[Result | None] = [None] * count

    @property
    def results(self) -> list[Result]:
        """Those that are there; all, once `missing` is 0."""
        return [one for one in self._results if one is not None]

    def settle(self, place: int, result: Result) -> None:
        """The result of the item at `place`."""
        self._results[place] = result
        self.missing -= 1
        if self.missing == 0 and self.done is not None and not self.done.done():
            self.done.set_result(self.results)


@dataclass(eq=False, slots=True)
class QueueEntry:
    """One distinct item on its way, and who waits for it.

    Without `work` it waits to be prepared, and `cost` is a guess; with it, it waits to be run.
    """

    item: Item
    key: bytes | None
    arrived: float
    cost: int
    work: Work | None = None
    waiters: list[tuple[PendingCall, int]] = field(default_factory=list)

    def leave(self, call: PendingCall) -> bool:
        """`call` waits for it no more; whether anybody still does."""
        self.waiters = [waiter for waiter in self.waiters if waiter[0] is not call]
        return bool(self.waiters)


class Waiting:
    """Entries in the order of their arrival; taking from anywhere in it is cheap."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, QueueEntry] = OrderedDict()
        self._windows: deque[list[QueueEntry]] = deque()  # what is left of a generation
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: QueueEntry) -> None:
        """At the end."""
        self._entries[id(entry)] = entry
        self.tokens += entry.cost

    def drop(self, entry: QueueEntry) -> bool:
        """Forget it; whether it was here."""
        here = self._entries.pop(id(entry), None) is not None
        self.tokens -= entry.cost if here else 0
        return here

    def take(self, count: int, budget: int | None = None) -> list[QueueEntry]:
        """The oldest, at most `count`, whose costs together fit into `budget`; always one."""
        return self._taken(self._oldest(count, budget))

    def take_window(self, budget: int) -> list[QueueEntry]:
        """Entries of near-equal cost that fit into `budget` padded tokens together.

        The oldest LOOKAHEAD budgets of tokens are a generation: windows are cut from it, and all of them go before
        the next generation is looked at.  So at most T + LOOKAHEAD * budget tokens go before an entry that had T
        tokens before it when it came, whatever comes after it.
        """
        while True:
            if not self._windows:
                self._windows.extend(self._generation(budget))
            window = [entry for entry in self._windows.popleft() if id(entry) in self._entries]
            if window:
                return self._taken(window)

    def _generation(self, budget: int) -> list[list[QueueEntry]]:
        """The windows of the oldest entries, that of the oldest first."""
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

    def _taken(self, entries: list[QueueEntry]) -> list[QueueEntry]:
        for entry in entries:
            self.drop(entry)
        return entries
