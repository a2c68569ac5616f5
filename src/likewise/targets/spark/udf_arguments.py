"""Arguments of `mlflow.pyfunc.spark_udf` that concern the model's environment and configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likewise.bundles.open import Bundle
from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.core.spec import ModelSpec
from likewise.engine.kinds import logged_libraries
from likewise.engine.load import allowed_engines
from likewise.engine.pyfunc import PyfuncKind
from likewise.engine.requirements import plain_requirements
from likewise.engine.versions import PYTHON, versions_of

LOCAL = "local"
RESTORING = ("virtualenv", "uv", "conda")


def needs_own_environment(env_manager: str | None, bundle: Bundle, model: ModelSpec) -> bool:
    """Whether the workers need an environment with the versions that the model was logged with.

    False if the driver's has them, or if the engine does not use the model's libraries.  Raises WrongUsage for an
    unknown `env_manager`, and if there cannot be such an environment.
    """
    if env_manager is None or env_manager == LOCAL:
        return False
    if env_manager not in RESTORING:
        raise WrongUsage(
            f"env_manager is {env_manager!r}", remedy=f"use one of: {', '.join((LOCAL, *RESTORING))}; or omit it"
        )
    if not logged_libraries(allowed_engines(bundle.manifest, model)[0]):
        return False
    wanted = f"env_manager={env_manager!r} demands the environment that the model was logged with"
    logged = bundle.manifest.environment
    if logged.python is None and not logged.requirements:
        raise WrongUsage(f"{wanted}, but it was logged without one", remedy="use env_manager='local'")
    versions = versions_of(bundle)
    for python in (each for each in (*versions.refused, *versions.others) if each.name == PYTHON):
        raise WrongUsage(
            f"{wanted}, Python {python.logged}, but the driver and the workers run Python {python.here}",
            remedy=f"start the driver with Python {python.logged}; or use env_manager='local'",
        )
    plain_requirements(logged.requirements)  # else nobody can install them
    return versions.note is not None


def checked_env(extra_env: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """The variables in a fixed order; WrongUsage unless all names and values are text that a process can have."""
    for name, value in (extra_env or {}).items():
        texts = isinstance(name, str) and isinstance(value, str)
        if not texts or not name or "=" in name or "\0" in name + value:
            raise WrongUsage(
                f"extra_env cannot set {name!r}: names and values must be text",
                remedy="use str, as in {'HOME': '/tmp'}",
            )
    return tuple(sorted((extra_env or {}).items()))


def read_model_config(model_config: Mapping[str, object] | str | Path | None) -> dict[str, object] | None:
    """`model_config` as a dict, read from its file if it is a path; WrongUsage if it is neither."""
    if model_config is None or isinstance(model_config, Mapping):
        return None if model_config is None else dict(model_config)
    path = Path(model_config)
    yaml = need("yaml", extra="mlflow")
    try:
        text = path.read_bytes()
        loaded: Any = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise WrongUsage(
            f"the model_config file {path} cannot be read: {error}", remedy="pass a dict, or a YAML or JSON file"
        ) from error
    if not isinstance(loaded, Mapping):
        raise WrongUsage(
            f"the model_config file {path} contains a {type(loaded).__name__}",
            remedy="write a mapping of names to values",
        )
    return dict(loaded)


def engine_for_config(
    config: Mapping[str, object] | None, engine: str | None, precision: str | None
) -> tuple[str | None, str | None]:
    """The engine and precision to select: with a configuration, the one that passes it to the model's code.

    Raises WrongUsage for another engine.
    """
    if not config:
        return engine, precision
    if engine not in (None, PyfuncKind.name):
        raise WrongUsage(
            f"the engine {engine} does not run the model's own code, which model_config configures",
            remedy=f"use engine={PyfuncKind.name!r}, or omit model_config",
        )
    return PyfuncKind.name, precision
