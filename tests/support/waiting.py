"""Waiting for what comes in its own time; imported by small processes, so it imports next to nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0  # seconds until a test that waits has failed
PAUSE = 0.005


def until(done: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Return once `done()` is true."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not done within {seconds:.0f} s"
        time.sleep(PAUSE)
