"""What the server must know of the model that it serves; the engine itself is handed in apart."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from likewise.core.signature import Signature

_REGISTERED = "models:/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """name: for people, such as the model's URI; digest: the bundle's; example: a JSON request body, MLflow's
    `serving_input_example.json`; version: of the registered model, where it has one.
    """

    name: str
    digest: str
    signature: Signature = field(default_factory=Signature)
    example: bytes | None = None
    version: str = ""

    @property
    def model_name(self) -> str:
        """The short name that stands in paths: of a registered model its name, of any other URI the last part.

        Only letters, digits, `.`, `_` and `-`, and never empty.
        """
        if self.name.startswith(_REGISTERED):
            short = re.split(r"[/@]", self.name.removeprefix(_REGISTERED).lstrip("/"))[0]
        else:
            short = re.split(r"[?#]", self.name)[0].rstrip("/\\").replace("\\", "/").rpartition("/")[2]
        return re.sub(r"[^A-Za-z0-9._-]+", "-", short).strip("-.") or "model"


def mlflow_version() -> str:
    """What MLflow's own `/version` prints: the version of MLflow here; Likewise's own where there is none."""
    return _version("mlflow", "mlflow-skinny", "likewise")


def likewise_version() -> str:
    """Ours."""
    return _version("likewise")


def _version(*packages: str) -> str:
    """Of the first that is installed."""
    for package in packages:
        with suppress(PackageNotFoundError):
            return version(package)
    return "unknown"
