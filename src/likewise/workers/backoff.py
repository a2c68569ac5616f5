"""When to start a worker again: at once, and ever later for one that keeps dying."""

from __future__ import annotations

FIRST_S = 0.1
LONGEST_S = 10.0
STEADY_S = 30.0  # one that has lived so long starts from the beginning


class Backoff:
    """Of one worker's place in the pool.

    failures: attempts in a row that came to nothing: it did not load, or was gone before it got any work.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._next_s = 0.0

    def ended(self, lived_s: float, *, worked: bool) -> float:
        """Seconds until the next start, after a worker that had loaded has ended."""
        if lived_s >= STEADY_S:
            self._next_s = 0.0
        if worked or lived_s >= STEADY_S:
            self.failures = 0
        else:
            self.failures += 1
        return self._delay()

    def failed(self) -> float:
        """Seconds until the next start, after a worker that did not load."""
        self.failures += 1
        return self._delay()

    def _delay(self) -> float:
        delay = self._next_s
        self._next_s = min(LONGEST_S, max(FIRST_S, 2 * delay))
        return delay
