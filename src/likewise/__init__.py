"""Likewise deploys MLflow models to any target, with the same predictions from each."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likewise.api import Bundle, bundle, environment, find, open_bundle, score, serve
    from likewise.deployment import Deployment, deploy, status, update
    from likewise.deployment import list_ as list  # noqa: A004  as `likewise list`
    from likewise.deployments import delete, history, logs
    from likewise.parity import verify

__all__ = [
    "Bundle",
    "Deployment",
    "bundle",
    "delete",
    "deploy",
    "environment",
    "find",
    "history",
    "list",
    "logs",
    "open_bundle",
    "score",
    "serve",
    "status",
    "update",
    "verify",
]
_MODULES = {
    **dict.fromkeys(("Deployment", "deploy", "list", "status", "update"), "likewise.deployment"),
    **dict.fromkeys(("delete", "history", "logs"), "likewise.deployments"),
    "verify": "likewise.parity",
}


def __getattr__(name: str) -> Any:
    # Lazy: logged pipelines import this package in environments without the dependencies of the server and the CLI.
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("likewise")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_MODULES.get(name, "likewise.api"))
    return getattr(module, "list_" if name == "list" else name)


def __dir__() -> Sequence[str]:
    return ["__version__", *__all__]
