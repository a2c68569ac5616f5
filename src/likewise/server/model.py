"""Metadata of the served model; the engine itself is passed in separately."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from likewise.core.signature import Signature

_REGISTERED = "models:/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """What the service shows of its model, and what it needs to decode requests.

    name: display name, such as the model's URI.  digest, build: of the bundle.  example: a JSON request body, MLflow's
    `serving_input_example.json`.  version: the registered model version, or an empty string.  facts: more about the
    bundle for `/bundle.json`, as plain JSON.
    """

    name: str
    digest: str
    build: str = ""
    signature: Signature = field(default_factory=Signature)
    example: bytes | None = None
    version: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def model_name(self) -> str:
        """The short name used in URL paths: a registered model's name, or the last part of any other URI.

        Only letters, digits, `.`, `_` and `-`, and never empty.
        """
        if self.name.startswith(_REGISTERED):
            short = re.split(r"[/@]", self.name.removeprefix(_REGISTERED).lstrip("/"))[0]
        else:
            short = re.split(r"[?#]", self.name)[0].rstrip("/\\").replace("\\", "/").rpartition("/")[2]
        return re.sub(r"[^A-Za-z0-9._-]+", "-", short).strip("-.") or "model"


def mlflow_version() -> str:
    """The installed MLflow version, as MLflow's own `/version` returns it; Likewise's version if MLflow is missing."""
    return _version("mlflow", "mlflow-skinny", "likewise")


def likewise_version() -> str:
    """The installed version of Likewise."""
    return _version("likewise")


def _version(*packages: str) -> str:
    """The version of the first package that is installed."""
    for package in packages:
        with suppress(PackageNotFoundError):
            return version(package)
    return "unknown"
