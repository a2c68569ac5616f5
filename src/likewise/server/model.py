"""What the server must know of the model that it serves; the engine itself is handed in apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from likewise.core.signature import Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """name: for people; digest: the bundle's; example: a JSON request body, MLflow's `serving_input_example.json`."""

    name: str
    digest: str
    signature: Signature = field(default_factory=Signature)
    example: bytes | None = None


def mlflow_version() -> str:
    """What MLflow's own `/version` prints: the version of MLflow here; Likewise's own where there is none."""
    for package in ("mlflow", "mlflow-skinny", "likewise"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"
