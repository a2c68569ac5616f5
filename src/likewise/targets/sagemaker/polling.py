"""Polls SageMaker until a condition holds or the time is over, and reports progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

SHORTEST_S, LONGEST_S, GROWTH = 0.05, 15.0, 1.4


@dataclass(frozen=True)
class Poller:
    """How to poll. report: called with a line when the state changes; sleep, now: in seconds, monotonic clock."""

    report: Callable[[str], None] = lambda _: None
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic

    def until(self, check: Callable[[], tuple[T | None, str]], timeout_s: float) -> T | None:
        """Call `check` until its result is not None, and return that; None after `timeout_s` seconds.

        check: returns the result and the state in words, which is reported when it changes.
        """
        started, pause, before = self.now(), SHORTEST_S, ""
        while True:
            result, state = check()
            if state != before:
                self.report(f"{state} ({self.now() - started:.0f} s)")
                before = state
            if result is not None:
                return result
            if self.now() - started >= timeout_s:
                return None
            self.sleep(min(pause, max(0.0, timeout_s - (self.now() - started))))
            pause = min(LONGEST_S, pause * GROWTH)
