"""Waiting for SageMaker: asked again and again, with what it says as progress, up to a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

SHORTEST_S, LONGEST_S, GROWTH = 0.05, 15.0, 1.4


@dataclass(frozen=True)
class Patience:
    """How to wait. tell: gets a line when something has changed; sleep, now: seconds, of the monotonic clock."""

    tell: Callable[[str], None] = lambda _: None
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic

    def until(self, look: Callable[[], tuple[T | None, str]], timeout_s: float) -> T | None:
        """What `look` gives first that is not None; None where that does not come in time.

        look: gives also how it stands, in words, which is told when it changes.
        """
        begun, pause, before = self.now(), SHORTEST_S, ""
        while True:
            found, about = look()
            if about != before:
                self.tell(f"{about} ({self.now() - begun:.0f} s)")
                before = about
            if found is not None:
                return found
            if self.now() - begun >= timeout_s:
                return None
            self.sleep(min(pause, max(0.0, timeout_s - (self.now() - begun))))
            pause = min(LONGEST_S, pause * GROWTH)
