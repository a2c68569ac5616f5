"""Whether Ray accepts the options of a deployment, and its nodes can use them; needs Ray, but no cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.core.option_fields import nearest
from likewise.targets.ray.inspection import DEPLOYMENT
from likewise.targets.ray.ray_options import RayOptions

URL = "put it where every node can read it, and name its URL (https://…, s3://…, or local:///FOLDER for a folder that "
URL += "every node has); the model's own files are in the bundle already"
WRITE = "write its content into the option, as JSON"


def require_valid(options: RayOptions) -> None:
    """Raise WrongUsage for options that Ray rejects or ignores, or that name a file of this machine; sends nothing.

    A deployment with such options could be submitted, but then Serve could describe no application of the cluster.
    """
    schema, serve = need("ray.serve.schema", extra="ray"), need("ray.serve", extra="ray")
    environment = need("ray.runtime_env", extra="ray")
    arguments = options.deployment()
    runtime = arguments["ray_actor_options"]["runtime_env"]
    _require_known("autoscaling_config", options.autoscaling_config, schema.AutoscalingConfig.model_fields)
    _require_known("logging_config", options.logging_config, schema.LoggingConfig.model_fields)
    _require_known("runtime_env", runtime, _runtime_keys(environment))
    for key, path, remedy in _local_files(runtime):
        cause = f"{key} of runtime_env is {path!r}, a path of this machine, which the cluster's nodes may not have"
        raise WrongUsage(cause, remedy=remedy)
    try:
        _require_known("config of runtime_env", runtime.get("config"), environment.RuntimeEnvConfig.known_fields)
        environment.RuntimeEnv(**runtime)
        serve.deployment(**arguments)(type("Replica", (), {}))
        supported = {key: value for key, value in arguments.items() if key in schema.DeploymentSchema.model_fields}
        schema.DeploymentSchema.model_validate({"name": DEPLOYMENT, **supported})
    except (ValueError, TypeError, AssertionError, ImportError, AttributeError) as error:  # the last two: a policy
        raise WrongUsage(
            f"Ray rejects the options: {_reason(error)}", remedy="see docs/ray.md for valid options"
        ) from error


def _require_known(option: str, given: Mapping[str, Any] | None, known: Iterable[str]) -> None:
    """Raise WrongUsage for a key that Ray would silently ignore."""
    names = sorted(known)
    for key in given or {}:
        if key not in names:
            remedy = f"{nearest(key, names)}valid keys: {', '.join(names)}"
            raise WrongUsage(f"{option} has no key {key!r} in Ray", remedy=remedy)


def _runtime_keys(environment: Any) -> set[str]:
    """The documented keys of a runtime environment, and those of plugins that are configured on this machine."""
    manager = need("ray._private.runtime_env.plugin_schema_manager", extra="ray").RuntimeEnvPluginSchemaManager
    own = {key for key in environment.RuntimeEnv.known_fields if not key.startswith("_")}
    return {*own, "nsight", "rocprof_sys", *manager.schemas}


def _local_files(runtime: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The key, the path and the remedy for each file or folder of this machine in a runtime environment."""
    for key in ("working_dir", "py_modules", "java_jars"):
        value = runtime.get(key)
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, str) and "://" not in path:
                yield key, path, URL
    for key in ("pip", "uv"):
        value = runtime.get(key)
        path = value.get("packages") if isinstance(value, Mapping) else value
        if isinstance(path, str):
            yield key, path, f'{WRITE}: "{key}": ["NAME==VERSION"]'
    conda = runtime.get("conda")
    if isinstance(conda, str) and conda.endswith((".yaml", ".yml")):
        yield "conda", conda, WRITE


def _reason(error: Exception) -> str:
    """The error in one line, without the addresses that pydantic adds."""
    listed = error.errors() if hasattr(error, "errors") else []
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in listed) or str(error)
