"""Environment variables for libraries, set before they are loaded: thread counts, home and temporary directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, MutableMapping

from likewise.core.cores import limit_threads, usable_cores

AUTO = "auto"
SHARED = "/dev/shm"  # noqa: S108  files in it are created with `tempfile`


def configure_environment(environment: MutableMapping[str, str]) -> None:
    """Set thread counts by the container's CPU quota, shared between workers, and an existing HOME and TMPDIR.

    Libraries count the machine's cores rather than the quota, and an arbitrary user has no home, which some require.
    """
    limit_threads(environment, share=max(1, requested_workers(environment)))
    scratch = _scratch()
    if scratch is not None:
        environment.setdefault("TMPDIR", scratch)
    if not os.access(environment.get("HOME") or "/nowhere", os.W_OK):
        environment["HOME"] = scratch or "/"


def requested_workers(environment: Mapping[str, str]) -> int:
    """The number of worker processes in the environment, a number or `auto`; 0 if unset or invalid."""
    value = environment.get("LIKEWISE_WORKERS") or environment.get("SAGEMAKER_MODEL_SERVER_WORKERS") or ""
    if value.lower() == AUTO:
        return usable_cores()
    return int(value) if value.isdecimal() else 0


def _scratch() -> str | None:
    """A writable folder: the temporary directory, or shared memory if the whole file system is read-only, or None."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return SHARED if os.access(SHARED, os.W_OK) else None
