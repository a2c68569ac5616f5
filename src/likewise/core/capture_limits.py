"""Limits of the options that capture requests, which a server and a deployment on Ray have in common."""

from __future__ import annotations

from likewise.core.errors import WrongUsage

LEAST_BYTES = 100_000  # a file has at least ten thousand bytes, and the oldest of several are deleted


def check_capture(rate: float, most_bytes: int, days: float) -> None:
    """Raises WrongUsage for a rate outside 0 to 1, a folder too small for its files, and an age of 0 or less."""
    if not 0 <= rate <= 1:
        raise WrongUsage(f"capture_rate is {rate:g}, not a fraction", remedy="use for example 0.1")
    if most_bytes < LEAST_BYTES:
        raise WrongUsage(
            f"capture_bytes is {most_bytes}, too small for the captured files", remedy=f"use at least {LEAST_BYTES}"
        )
    if not days > 0:
        raise WrongUsage(f"capture_days is {days:g}, so that no file is kept", remedy="use for example 30")
