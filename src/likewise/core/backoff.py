"""Exponential backoff between restarts of a process."""

from __future__ import annotations


class Backoff:
    """Delays between restarts: `first_s` seconds, doubled each time up to `longest_s`.

    A process that ran for `steady_s` seconds resets the delay.  at_once: the very first delay is 0.
    failures: consecutive processes that did no work and exited before `steady_s`.
    """

    def __init__(self, first_s: float, longest_s: float, steady_s: float, *, at_once: bool = False) -> None:
        self.failures = 0
        self._first_s = first_s
        self._longest_s = longest_s
        self._steady_s = steady_s
        self._initial_s = self._next_s = 0.0 if at_once else first_s

    def pause_s(self, uptime_s: float, *, worked: bool = True) -> float:
        """Seconds to wait before the next start.

        uptime_s: how long the last process ran; 0 if it never became ready.  worked: whether it processed anything.
        """
        steady = uptime_s >= self._steady_s
        if steady:
            self._next_s = self._initial_s
        self.failures = 0 if worked or steady else self.failures + 1
        pause, self._next_s = self._next_s, min(self._longest_s, max(self._first_s, 2 * self._next_s))
        return pause
