"""Environment variables for libraries, set before they are loaded: thread counts, home and temporary directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import MutableMapping

from likewise.core.cores import limit_threads

SHARED = "/dev/shm"  # noqa: S108  files in it are created with `tempfile`


def configure_environment(environment: MutableMapping[str, str]) -> None:
    """Set thread counts by the container's CPU quota, and an existing HOME and TMPDIR.

    Libraries count the machine's cores rather than the quota, and an arbitrary user has no home, which some require.
    """
    limit_threads(environment)
    scratch = _scratch()
    if scratch is not None:
        environment.setdefault("TMPDIR", scratch)
    if not os.access(environment.get("HOME") or "/nowhere", os.W_OK):
        environment["HOME"] = scratch or "/"


def _scratch() -> str | None:
    """A writable folder: the temporary directory, or shared memory if the whole file system is read-only, or None."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return SHARED if os.access(SHARED, os.W_OK) else None
