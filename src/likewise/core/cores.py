"""The number of CPUs that this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def usable_threads() -> int:
    """Number of compute threads: `OMP_NUM_THREADS`, which the numeric libraries honour too, or one per usable core."""
    configured = os.environ.get("OMP_NUM_THREADS", "")
    return int(configured) if configured.isdecimal() and int(configured) > 0 else usable_cores()


def usable_cores() -> int:
    """Number of CPUs that this process may use, taking CPU affinity and a container's quota into account."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return usable if quota == "max" else max(1, min(usable, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return usable
