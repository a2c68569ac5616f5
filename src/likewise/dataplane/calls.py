"""What waits in the data plane: calls, and their items."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from likewise.core.engine import Work
from likewise.core.items import Item
from likewise.core.results import Result
from likewise.core.windows import windows

CANDIDATES = 1024  # waiting works that one window is chosen among, so that a long queue stays cheap


class Call:
    """One caller's items; `done` holds their results, in order, once each has one."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.done: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self.entries = [Entry(self, place, item) for place, item in enumerate(items)]
        self._results: list[Result | None] = [None] * len(items)
        self._missing = len(items)

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.done.done()

    def settle(self, place: int, result: Result) -> None:
        """The result of the item at `place`."""
        self._results[place] = result
        self._missing -= 1
        if self._missing == 0 and not self.done.done():
            self.done.set_result([one for one in self._results if one is not None])


@dataclass(eq=False, slots=True)
class Entry:
    """One item on its way: without `work` it waits to be prepared, with it to be run."""

    call: Call
    place: int
    item: Item
    work: Work | None = None


class Waiting:
    """Entries in the order of their arrival; taking from anywhere in it is cheap."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """At the end."""
        self._entries[id(entry)] = entry

    def drop(self, entry: Entry) -> None:
        """Forget it; nothing happens where it is not here."""
        self._entries.pop(id(entry), None)

    def take(self, count: int) -> list[Entry]:
        """The `count` oldest, or fewer."""
        return self._taken(list(islice(self._entries.values(), count)))

    def take_window(self, budget: int) -> list[Entry]:
        """The oldest, and those of near-equal cost that fit into `budget` tokens with it: nothing ever starves."""
        oldest = list(islice(self._entries.values(), CANDIDATES))
        costs = [entry.work.cost if entry.work else 1 for entry in oldest]
        group = next(group for group in windows(costs, budget) if 0 in group)
        return self._taken([oldest[i] for i in sorted(group)])

    def _taken(self, entries: list[Entry]) -> list[Entry]:
        for entry in entries:
            del self._entries[id(entry)]
        return entries
