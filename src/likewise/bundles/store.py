"""Which store MLflow would ask for a URI that names none; told from the environment, without MLflow.

`mlflow.set_tracking_uri` and `set_registry_uri` set the same variables.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

STORELESS = ("models", "runs", "mlflow-artifacts")


def needs_store(uri: str) -> bool:
    """Whether `uri` means another thing in another store."""
    return urlsplit(uri).scheme in STORELESS


def asked_store() -> str:
    """The store in one spelling, without a password; both, where registry and runs lie in different ones."""
    tracking = _normal(os.environ.get("MLFLOW_TRACKING_URI") or _default())
    registry = os.environ.get("MLFLOW_REGISTRY_URI")
    if not registry or _normal(registry) == tracking:
        return tracking
    return f"{_normal(registry)} with runs in {tracking}"


def _default() -> str:
    """Of MLflow 3: the folder `mlruns` where it holds experiments, else a database in the current folder."""
    return "mlruns" if any(Path("mlruns").glob("[0-9]*/meta.yaml")) else "sqlite:///mlflow.db"


def _normal(store: str) -> str:
    if store in ("databricks", "databricks-uc", "uc"):  # names, and no paths
        return store
    parts = urlsplit(store)
    if parts.scheme in ("", "file"):
        return str(Path(unquote(parts.path)).resolve())
    if parts.scheme.partition("+")[0] == "sqlite":
        return f"sqlite:///{Path(parts.path[1:]).resolve()}"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
