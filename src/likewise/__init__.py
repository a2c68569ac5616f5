"""Likewise: one MLflow model, every place where it must answer, the same answer from each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likewise.api import Bundle, bundle, find, open_bundle, score, serve
    from likewise.deployments import deploy
    from likewise.parity import verify

__all__ = ["Bundle", "bundle", "deploy", "find", "open_bundle", "score", "serve", "verify"]
_ELSEWHERE = {"deploy": "likewise.deployments", "verify": "likewise.parity"}


def __getattr__(name: str) -> Any:
    # Lazy: a logged pipeline carries this package into environments that have neither server nor command line.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "likewise.api")), name)
