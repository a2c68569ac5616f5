"""Garbage collection of processes that import large libraries: what these create stays, so scanning it is in vain."""

from __future__ import annotations

import gc


def collect_less() -> None:
    """Raise the thresholds of this process: a tenth less CPU time until a model is loaded.  For programs only."""
    gc.set_threshold(50_000, 20, 20)
