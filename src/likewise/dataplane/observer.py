"""What the data plane tells of itself; whoever counts overrides what he counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ran:
    """One window that went through the engine.

    tokens: the sum of the items' costs; padded: items times the longest; waited: seconds in the queue, one an item.
    """

    items: int
    tokens: int
    padded: int
    seconds: float
    waited: Sequence[float]
    raised: int


class Observer:
    """Called on the event loop; counts nothing itself."""

    def ran(self, ran: Ran) -> None:
        """A window was computed."""

    def hit(self) -> None:
        """An item was answered from the cache."""

    def missed(self, items: int) -> None:
        """Items of a pure engine were not in the cache, nor on their way."""

    def shared(self, items: int) -> None:
        """Items joined equal ones that were already on their way."""

    def dropped(self, items: int) -> None:
        """Items were thrown away before they cost compute: nobody waits for them any more."""

    def shed(self, reason: str) -> None:
        """A call was refused: `deadline` or `queue`."""
