"""The CPUs that there really are."""

from __future__ import annotations

import os
from pathlib import Path


def usable_threads() -> int:
    """Threads to compute with: as many as `OMP_NUM_THREADS` says, which the libraries go by too, else the cores."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) > 0 else usable_cores()


def usable_cores() -> int:
    """CPUs that this process may really use, a container's quota included."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return usable if quota == "max" else max(1, min(usable, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return usable
