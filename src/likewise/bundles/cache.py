"""This user's cache: bundles, image layers, wheels, archives, measurements."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from likewise.core.errors import OutputRefused
from likewise.core.private_files import private_folder


def cache_home() -> Path:
    """The cache folder: `LIKEWISE_CACHE_HOME`, or `likewise` in the user's cache folder."""
    return Path(os.environ.get("LIKEWISE_CACHE_HOME") or user_cache_path("likewise")).absolute()


def cache_folder(kind: str) -> Path:
    """The private folder `kind` of the cache; OutputRefused if it cannot be created or is not this user's."""
    folder, remedy = cache_home() / kind, "delete it, or set LIKEWISE_CACHE_HOME to a private folder"
    try:
        return private_folder(folder, remedy=remedy)
    except OSError as error:
        raise OutputRefused(f"{folder} cannot be created: {error.strerror}", remedy=remedy) from error
