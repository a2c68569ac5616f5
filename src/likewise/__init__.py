"""Likewise: one MLflow model, every place where it must answer, the same answer from each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likewise.api import Bundle, bundle, find, open_bundle, score, serve
    from likewise.deployments import deploy

__all__ = ["Bundle", "bundle", "deploy", "find", "open_bundle", "score", "serve"]


def __getattr__(name: str) -> Any:
    # Lazy: a logged pipeline carries this package into environments that have neither server nor command line.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from likewise import api, deployments

    return getattr(deployments if name == "deploy" else api, name)
