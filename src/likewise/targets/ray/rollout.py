"""One Serve application a deployment: started, updated, awaited, taken back; runs in the agent."""

from __future__ import annotations

import http.client
import importlib
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from likewise.core.digests import sha256_json
from likewise.core.errors import AlreadyDeployed, DeployFailed, WrongUsage
from likewise.targets.options import coerce
from likewise.targets.ray import store
from likewise.targets.ray.look import APP, DEPLOYMENT, http_options, serve_details, status, url_of
from likewise.targets.ray.options import RayOptions

POLL_S = 0.1
UNREACHED_S = 10.0  # after which a proxy that this machine cannot reach is left to those who can
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")


def run(params: Mapping[str, Any]) -> dict[str, Any]:
    """Deploy or update `name` and wait until every replica is ready; where it answers.

    params: name, address, model (as a dict), options, shipment, create.  Raises AlreadyDeployed (create, and something
    else stands there), DeployFailed with Serve's own words, WrongUsage for options that Ray refuses.
    """
    app, key = APP + params["name"], _key(params)
    options = coerce(RayOptions, params["options"])
    deadline = time.monotonic() + options.timeout_s
    noted, there = store.noted(app), _applications()
    same = noted is not None and noted["key"] == key and app in there
    if params["create"] and app in there and not same:
        raise AlreadyDeployed(f"{params['name']!r} is deployed on this Ray cluster", remedy="update it, or delete it")
    _require_route(app, options.prefix(params["name"]), there)
    if noted is None or not same or noted["state"] == "begun":
        before = None if noted is None else {name: value for name, value in noted.items() if name != "before"}
        told = {"key": key, "before": before, **_told(params)}
        store.note(app, {"state": "begun", **told})
        _deploy(app, params, options)
        store.note(app, {"state": "deployed", **told})
    _await_running(params["name"], options, deadline)
    url = url_of(params["address"], http_options(), options.prefix(params["name"]))
    reached = _await_ready(url, params["model"]["digest"], deadline)
    store.note(app, {"state": "done", "key": key, **_told(params)})
    store.collect()
    return {"url": url, "application": app, "reached": reached}


def take_back(params: Mapping[str, Any]) -> None:
    """What `run` with the same params has begun: the version before it is deployed again, or nothing is left."""
    app = APP + params["name"]
    noted = store.noted(app)
    if noted is None or noted["key"] != _key(params):
        return
    if params.get("previous") is None:
        stop(params)
        return
    run({**params, **params["previous"], "create": False})


def stop(params: Mapping[str, Any]) -> None:
    """Delete the application, and wait until its replicas have gone; nothing where it is not there."""
    app = APP + params["name"]
    if app in _applications():
        importlib.import_module("ray.serve").delete(app)
    store.forget(app)
    store.collect()


def _deploy(app: str, params: Mapping[str, Any], options: RayOptions) -> None:
    serve = importlib.import_module("ray.serve")
    api = importlib.import_module("ray.serve.api")
    config = importlib.import_module("ray.serve.config").AutoscalingConfig
    _require_known("autoscaling_config", options.autoscaling_config, config)
    logs = importlib.import_module("ray.serve.schema").LoggingConfig
    _require_known("logging_config", options.logging_config, logs)
    store.by_value()
    replica = importlib.import_module("likewise.targets.ray.replica").Replica
    model = {name: params["model"][name] for name in ("digest", "engine", "precision", "trust")}
    try:
        made = serve.deployment(name=DEPLOYMENT, **options.deployment())(serve.ingress()(replica))
    except (ValueError, TypeError) as error:  # pydantic's are ValueErrors
        raise WrongUsage(f"Ray refuses the options: {error}", remedy="see docs/ray.md for what Ray takes") from error
    target = api.RunTarget(made.bind(params["shipment"], model, options.server()), app, options.prefix(params["name"]))
    api.run_many([target], wait_for_applications_running=False)


def _require_known(option: str, given: Mapping[str, Any] | None, kind: Any) -> None:
    """WrongUsage for a key that Ray would pass over in silence."""
    known = list(kind.model_fields)
    for key in given or {}:
        if key not in known:
            near = get_close_matches(key, known, 1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise WrongUsage(f"{option} has no {key!r} in Ray", remedy=f"{meant}it has: {', '.join(sorted(known))}")


def _await_running(name: str, options: RayOptions, deadline: float) -> None:
    """DeployFailed, with Serve's words, where it fails or is not done by the deadline."""
    while (seen := status({"name": name}))["status"] != "RUNNING":
        if seen["status"] in FAILED:
            raise DeployFailed(f"Ray Serve could not start {name!r}: {_said(seen)}", remedy=_HOW)
        if time.monotonic() > deadline:
            raise DeployFailed(
                f"{name!r} was not ready on Ray after {options.timeout_s:.0f} s; {_room(seen, options)}; {_said(seen)}",
                remedy="free what it lacks, ask for less by ray_actor_options, or raise timeout_s",
            )
        time.sleep(POLL_S)


def _room(seen: Mapping[str, Any], options: RayOptions) -> str:
    """What the replicas wait for, in a line."""
    states = ", ".join(f"{each['state']} {each['node'] or ''}".strip() for each in seen.get("replicas", []))
    free, each = importlib.import_module("ray").available_resources(), options.resources()
    have = {name: free.get(name, 0.0) for name in each}
    return f"its replicas: {states or 'none'}; each needs {each}, and {have} are free"


def _await_ready(url: str, digest: str, deadline: float) -> bool:
    """Whether the proxy answers for this bundle; False where it cannot be reached from this machine."""
    unreached = time.monotonic() + UNREACHED_S
    while True:
        answer = _ready(url)
        if answer == (200, digest):
            return True
        now = time.monotonic()
        if answer is None and now > unreached:
            return False
        if now > deadline:
            raise DeployFailed(f"{url}/ready answers {answer}, and not 200 for {digest}", remedy=_HOW)
        time.sleep(POLL_S)


def _ready(url: str) -> tuple[int, str | None] | None:
    """Status and bundle of the answer; None where there is no answer."""
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5.0) as answer:  # noqa: S310  Serve's own address
            return answer.status, answer.headers["X-Likewise-Bundle"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["X-Likewise-Bundle"]
    except (OSError, http.client.HTTPException):
        return None


def _require_route(app: str, prefix: str, there: Mapping[str, Any]) -> None:
    for name, each in there.items():
        if name != app and each["route_prefix"] == prefix:
            raise AlreadyDeployed(
                f"the Serve application {name!r} answers at {prefix}",
                remedy="-C route_prefix=/ANOTHER, or another name",
            )


def _applications() -> dict[str, Any]:
    return dict((serve_details() or {}).get("applications", {}))


def _told(params: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": params["model"], "options": params["options"], "shipment": params["shipment"]}


def _key(params: Mapping[str, Any]) -> str:
    return sha256_json(_told(params))


def _said(seen: Mapping[str, Any]) -> str:
    """What Serve says, without the frames of its tracebacks."""
    lines = [line.strip() for line in (seen.get("message") or "").splitlines()]
    kept = [line for line in lines if line and not line.startswith(("File ", "^", "Traceback", "~"))]
    named = [line for line in kept if "Error: " in line or line.startswith("likewise.")]
    return (named or kept or ["Serve says nothing"])[-1][:800]


_HOW = "mend what it says; the replica's log is in Ray's session folder, logs/serve"
