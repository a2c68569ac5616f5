"""What the libraries find of the container, set before any of them is loaded: threads, a home, a place to write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, MutableMapping

from likewise.core.cores import usable_cores
from likewise.workers.pool import worker_environment

AUTO = "auto"
SHARED = "/dev/shm"  # noqa: S108  each file in it is made by `tempfile`


def settle(environment: MutableMapping[str, str]) -> None:
    """As many threads as the container's quota has cores, shared between workers; a home and a TMPDIR that are there.

    Libraries count the machine's cores, not the quota's; and an arbitrary user has no home, which some ask for.
    """
    environment.update(worker_environment(max(1, workers_asked(environment)), dict(environment)))
    scratch = _scratch()
    if scratch is not None:
        environment.setdefault("TMPDIR", scratch)
    if not os.access(environment.get("HOME") or "/nowhere", os.W_OK):
        environment["HOME"] = scratch or "/"


def workers_asked(environment: Mapping[str, str]) -> int:
    """Processes for the model, as far as the environment says it in numbers, or `auto`; else 0."""
    said = environment.get("LIKEWISE_WORKERS") or environment.get("SAGEMAKER_MODEL_SERVER_WORKERS") or ""
    if said.lower() == AUTO:
        return usable_cores()
    return int(said) if said.isdecimal() else 0


def _scratch() -> str | None:
    """A folder to write into: on a disk that is all read-only, the shared memory, which every container has."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return SHARED if os.access(SHARED, os.W_OK) else None
