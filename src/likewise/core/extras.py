"""Imports of optional libraries, with installation instructions if one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from likewise.core.errors import MissingExtra


def need(module: str, *, extra: str) -> ModuleType:
    """Import `module`; raises MissingExtra with the installation command if it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        raise MissingExtra(
            f"this needs {top}, which is not installed", remedy=f"pip install 'likewise[{extra}]'"
        ) from error
