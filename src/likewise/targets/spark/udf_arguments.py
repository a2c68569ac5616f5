"""Arguments of `mlflow.pyfunc.spark_udf` that concern the model's environment and configuration."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from likewise.bundles.format import LoggedEnvironment
from likewise.bundles.open import Bundle
from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.core.spec import ModelSpec
from likewise.engine.kinds import runs_code
from likewise.engine.load import allowed_engines
from likewise.engine.pyfunc import PyfuncKind
from likewise.engine.requirements import plain_requirement, plain_requirements

LOCAL = "local"
RESTORING = ("virtualenv", "uv", "conda")
SHOWN = 3  # differences in a message


def require_environment(env_manager: str | None, bundle: Bundle, model: ModelSpec, *, shipped: bool) -> None:
    """WrongUsage if `env_manager` demands the environment that the model was logged with, and workers have another.

    shipped: whether the workers use the driver's environment.  Nothing is required of it for an engine that does not
    run the model's own code.
    """
    if env_manager is None or env_manager == LOCAL:
        return
    if env_manager not in RESTORING:
        raise WrongUsage(
            f"env_manager is {env_manager!r}", remedy=f"use one of: {', '.join((LOCAL, *RESTORING))}; or omit it"
        )
    if not runs_code(allowed_engines(bundle.manifest, model)[0]):
        return
    wanted = f"env_manager={env_manager!r} demands the environment that the model was logged with"
    if not shipped:
        raise WrongUsage(f"{wanted}, but ship=False uses the executors' own", remedy="omit ship, or env_manager")
    logged = bundle.manifest.environment
    if logged.python is None and not logged.requirements:
        raise WrongUsage(f"{wanted}, but it was logged without one", remedy="use env_manager='local'")
    if python := _other_python(logged):
        raise WrongUsage(
            f"{wanted}, Python {logged.python}, but the driver and the workers run Python {python}",
            remedy=f"start the driver with Python {logged.python}; or use env_manager='local'",
        )
    if missing := dict(_other_packages(logged)):
        listed = ", ".join(list(missing.values())[:SHOWN]) + (" and others" if len(missing) > SHOWN else "")
        raise WrongUsage(
            f"{wanted}, but the driver's, which the workers use, differs: {listed}",
            remedy=f"pip install {' '.join(map(repr, missing))}; or use env_manager='local'",
        )


def _other_python(logged: LoggedEnvironment) -> str | None:
    """This Python's version if its minor version is not the logged one."""
    mine = platform.python_version()
    return mine if logged.python and logged.python.split(".")[:2] != mine.split(".")[:2] else None


def _other_packages(logged: LoggedEnvironment) -> Iterator[tuple[str, str]]:
    """Each logged requirement that the installed distributions do not meet, with what is installed instead."""
    for line in plain_requirements(logged.requirements):
        requirement = plain_requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield line, f"{requirement.name} is not installed"
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            yield line, f"{requirement.name} is {installed}, not {requirement.specifier}"


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
