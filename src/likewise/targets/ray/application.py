"""Deploying a Serve application and waiting until it runs or is deleted; runs in the agent."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from typing import Any

from likewise.core.digests import sha256_json
from likewise.core.errors import DeployFailed
from likewise.core.option_fields import coerce
from likewise.core.spec import ModelSpec
from likewise.targets.ray import store
from likewise.targets.ray.inspection import DEPLOYMENT, applications, status
from likewise.targets.ray.ray_options import RayOptions

POLL_S = 0.1
DELETE_TIMEOUT_S = 60.0
FAILED_STATES = ("DEPLOY_FAILED", "UNHEALTHY")
REMEDY = (
    "fix the reported error; the replica's log is in logs/serve of Ray's session folder, which is "
    "/tmp/ray/session_latest on its node unless Ray was started with --temp-dir"
)


def deploy(app: str, params: Mapping[str, Any], options: RayOptions, prefix: str | None) -> None:
    """Submit the application to Serve, which deploys it asynchronously. prefix: its route, None for no route.

    params: model (as a dict), options, shipment.  options: valid, by `valid_options.require_valid`.
    """
    serve = importlib.import_module("ray.serve")
    api = importlib.import_module("ray.serve.api")
    store.by_value()
    replica = importlib.import_module("likewise.targets.ray.replica").Replica
    version = version_of(params)
    deployment = serve.deployment(name=DEPLOYMENT, **options.deployment())(serve.ingress()(replica))
    # without a version Serve treats each deployment as new code and restarts all replicas
    deployment = deployment.options(version=version, _internal=True)
    bound = deployment.bind(params["shipment"], ModelSpec.from_dict(params["model"]).portable(), options.server())
    api.run_many([api.RunTarget(bound, app, prefix)], wait_for_applications_running=False)


def version_of(deployment: Mapping[str, Any]) -> str:
    """A digest of what a replica depends on: if it stays the same, Serve keeps the running replicas.

    deployment: model (as a dict), options, shipment.
    """
    content = {
        "model": ModelSpec.from_dict(deployment["model"]).portable(),
        "shipment": deployment["shipment"],
        "server": coerce(RayOptions, deployment["options"]).server(),
    }
    return sha256_json(content).removeprefix("sha256:")[:32]


def await_running(name: str, options: RayOptions, deadline: float, timeout_s: float) -> None:
    """Wait until the deployment `name` runs; raises DeployFailed with Serve's message if it fails, or at `deadline`.

    deadline: a time of `time.monotonic`.  timeout_s: the corresponding time limit, for the error message.
    """
    while (serve_status := status({"name": name}))["status"] != "RUNNING":
        if serve_status["status"] in FAILED_STATES:
            raise DeployFailed(f"Ray Serve could not start {name!r}: {serve_status['reason']}", remedy=REMEDY)
        if time.monotonic() > deadline:
            raise DeployFailed(
                f"{name!r} was not ready on Ray after {timeout_s:.0f} s; {_capacity(serve_status, options)}; "
                f"{serve_status['reason']}",
                remedy="free these resources, request less with ray_actor_options, or raise timeout_s; if they are "
                "free, check label_selector and runtime_env",
            )
        time.sleep(POLL_S)


def await_gone(app: str) -> None:
    """Wait until Serve has deleted the application and its replicas; raises DeployFailed after DELETE_TIMEOUT_S."""
    deadline = time.monotonic() + DELETE_TIMEOUT_S
    while app in applications():
        if time.monotonic() > deadline:
            raise DeployFailed(f"Serve has not deleted {app!r}", remedy="inspect it with `serve status`")
        time.sleep(POLL_S)


def _capacity(serve_status: Mapping[str, Any], options: RayOptions) -> str:
    """One line: the replicas' states, the resources that each needs, and those that are free."""
    states = ", ".join(f"{each['state']} {each['node'] or ''}".strip() for each in serve_status.get("replicas", []))
    free, each = importlib.import_module("ray").available_resources(), options.resources()
    available = {name: free.get(name, 0.0) for name in each}
    return f"its replicas: {states or 'none'}; each needs {each}, and {available} are free"
