"""When to start again what has ended: soon, and ever later while it keeps ending."""

from __future__ import annotations


class Backoff:
    """The pauses between starts: `first_s` seconds, doubled each time up to `longest_s`.

    One that has lived for `steady_s` starts from the beginning.  at_once: the very first pause is 0.
    failures: how many in a row came to nothing: they did not work, and did not live for `steady_s`.
    """

    def __init__(self, first_s: float, longest_s: float, steady_s: float, *, at_once: bool = False) -> None:
        self.failures = 0
        self._first_s = first_s
        self._longest_s = longest_s
        self._steady_s = steady_s
        self._begin_s = self._next_s = 0.0 if at_once else first_s

    def pause_s(self, lived_s: float, *, worked: bool = True) -> float:
        """Seconds until the next start, after one that lived for `lived_s`: 0 for one that never was ready."""
        steady = lived_s >= self._steady_s
        if steady:
            self._next_s = self._begin_s
        self.failures = 0 if worked or steady else self.failures + 1
        pause, self._next_s = self._next_s, min(self._longest_s, max(self._first_s, 2 * self._next_s))
        return pause
