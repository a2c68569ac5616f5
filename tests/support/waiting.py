"""Waiting for a condition; imported by small processes, so it imports only the standard library."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0  # seconds until a waiting test fails
PAUSE = 0.005


def until(done: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Return when `done()` is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not done within {seconds:.0f} s"
        time.sleep(PAUSE)
