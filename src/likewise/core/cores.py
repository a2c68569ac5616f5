"""The CPUs that there really are."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """CPUs that this process may really use, a container's quota included."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return usable if quota == "max" else max(1, min(usable, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return usable
