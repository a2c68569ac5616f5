"""When to start the service again after it ended: soon, and ever later while it keeps ending."""

from __future__ import annotations

FIRST_S = 0.2
LONGEST_S = 30.0
HEALTHY_S = 60.0  # one that has answered so long starts from the beginning


class Backoff:
    """The pauses between starts."""

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def pause_s(self, lived_s: float) -> float:
        """Seconds to wait after a process that was ready for `lived_s`; 0 for one that never was."""
        if lived_s >= HEALTHY_S:
            self._next_s = FIRST_S
        pause, self._next_s = self._next_s, min(LONGEST_S, 2 * self._next_s)
        return pause
