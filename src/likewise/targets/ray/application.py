"""One Serve application of ours: handed to Serve, awaited, dropped; runs in the agent."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from typing import Any

from likewise.core.digests import sha256_json
from likewise.core.errors import DeployFailed, WrongUsage
from likewise.core.extras import need
from likewise.core.option_fields import coerce, nearest
from likewise.core.spec import ModelSpec
from likewise.targets.ray import store
from likewise.targets.ray.inspection import DEPLOYMENT, applications, status
from likewise.targets.ray.ray_options import RayOptions

POLL_S = 0.1
GONE_S = 60.0
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
HOW = "mend what it says; the replica's log is in Ray's session folder, logs/serve"


def deploy(app: str, params: Mapping[str, Any], options: RayOptions, prefix: str | None) -> None:
    """Hand it to Serve, which goes on by itself. prefix: its route, None for none.

    params: model (as a dict), options, shipment.  Raises WrongUsage for options that Ray refuses.
    """
    serve = importlib.import_module("ray.serve")
    api = importlib.import_module("ray.serve.api")
    require_known(options)
    store.by_value()
    replica = importlib.import_module("likewise.targets.ray.replica").Replica
    version = version_of(params)
    try:
        made = serve.deployment(name=DEPLOYMENT, **options.deployment())(serve.ingress()(replica))
        made = made.options(version=version, _internal=True)  # else each deployment is a new one, and all restart
    except (ValueError, TypeError) as error:  # pydantic's are ValueErrors
        raise WrongUsage(f"Ray refuses the options: {error}", remedy="see docs/ray.md for what Ray takes") from error
    bound = made.bind(params["shipment"], ModelSpec.from_dict(params["model"]).portable(), options.server())
    api.run_many([api.RunTarget(bound, app, prefix)], wait_for_applications_running=False)


def version_of(said: Mapping[str, Any]) -> str:
    """What a replica is made of, as a digest: where it stays the same, Serve keeps the replicas that run.

    said: model (as a dict), options, shipment.
    """
    server = coerce(RayOptions, said["options"]).server()
    made = {"model": ModelSpec.from_dict(said["model"]).portable(), "shipment": said["shipment"], "server": server}
    return sha256_json(made).removeprefix("sha256:")[:32]


def await_running(name: str, options: RayOptions, deadline: float, given_s: float) -> None:
    """DeployFailed, with Serve's words, where it fails or is not done by the deadline, `given_s` after its start."""
    while (seen := status({"name": name}))["status"] != "RUNNING":
        if seen["status"] in FAILED:
            raise DeployFailed(f"Ray Serve could not start {name!r}: {_said(seen)}", remedy=HOW)
        if time.monotonic() > deadline:
            raise DeployFailed(
                f"{name!r} was not ready on Ray after {given_s:.0f} s; {_room(seen, options)}; {_said(seen)}",
                remedy="free what it lacks, ask for less by ray_actor_options, or raise timeout_s",
            )
        time.sleep(POLL_S)


def await_gone(app: str) -> None:
    """Until Serve has deleted it, replicas and all; DeployFailed."""
    deadline = time.monotonic() + GONE_S
    while app in applications():
        if time.monotonic() > deadline:
            raise DeployFailed(f"Serve does not delete {app!r}", remedy="look at it with `serve status`")
        time.sleep(POLL_S)


def _room(seen: Mapping[str, Any], options: RayOptions) -> str:
    """What the replicas wait for, in a line."""
    states = ", ".join(f"{each['state']} {each['node'] or ''}".strip() for each in seen.get("replicas", []))
    free, each = importlib.import_module("ray").available_resources(), options.resources()
    have = {name: free.get(name, 0.0) for name in each}
    return f"its replicas: {states or 'none'}; each needs {each}, and {have} are free"


def require_known(options: RayOptions) -> None:
    """WrongUsage for a key that Ray would pass over in silence."""
    schema = need("ray.serve.schema", extra="ray")
    kinds = {"autoscaling_config": schema.AutoscalingConfig, "logging_config": schema.LoggingConfig}
    for option, kind in kinds.items():
        known = sorted(kind.model_fields)
        for key in getattr(options, option) or {}:
            if key not in known:
                remedy = f"{nearest(key, known)}it has: {', '.join(known)}"
                raise WrongUsage(f"{option} has no {key!r} in Ray", remedy=remedy)


def _said(seen: Mapping[str, Any]) -> str:
    """What Serve says, without the frames of its tracebacks."""
    lines = [line.strip() for line in (seen.get("message") or "").splitlines()]
    kept = [line for line in lines if line and not line.startswith(("File ", "^", "Traceback", "~"))]
    named = [line for line in kept if "Error: " in line or line.startswith("likewise.")]
    return (named or kept or ["Serve says nothing"])[-1][:800]
