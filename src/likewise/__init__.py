"""Likewise deploys MLflow models to any target, with the same predictions from each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likewise.api import Bundle, bundle, environment, find, open_bundle, score, serve
    from likewise.deployments import deploy
    from likewise.parity import verify

__all__ = ["Bundle", "bundle", "deploy", "environment", "find", "open_bundle", "score", "serve", "verify"]
_MODULES = {"deploy": "likewise.deployments", "verify": "likewise.parity"}


def __getattr__(name: str) -> Any:
    # Lazy: logged pipelines import this package in environments without the dependencies of the server and the CLI.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES.get(name, "likewise.api")), name)
