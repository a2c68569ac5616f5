"""Hooks for events of the data plane; subclasses override those that they count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunStats:
    """Statistics of one engine run, which processes one window of items.

    tokens: sum of the items' costs; padded: number of items times the largest cost; waited: each item's seconds in the
    queue; raised: items on which the model raised an exception.
    """

    items: int
    tokens: int
    padded: int
    seconds: float
    waited: Sequence[float]
    raised: int


class Observer:
    """Receives the events on the event loop; the default methods do nothing."""

    def ran(self, run: RunStats) -> None:
        """A window was computed."""

    def hit(self) -> None:
        """An item's result came from the cache."""

    def missed(self, items: int) -> None:
        """Items of a pure engine were neither cached nor in flight."""

    def shared(self, items: int) -> None:
        """Items joined equal items that were already in flight."""

    def dropped(self, items: int) -> None:
        """Items were dropped before being computed because no call waits for them any more."""

    def shed(self, reason: str) -> None:
        """A call was rejected; reason: `deadline` or `queue`."""

    def ended(self, reason: str, cause: str) -> None:
        """A run had no results; reason: `timeout`, `death` (its process died), `overdue` (it cannot be ended)."""

    def failed(self, cause: str) -> None:
        """Items failed; cause: why, without any of their values."""

    def repeated(self, items: int) -> None:
        """Items of such a run are run again, one by one."""
