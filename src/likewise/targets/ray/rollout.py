"""Deployments as Serve applications: create, update, wait, roll back, delete; runs in the agent."""

from __future__ import annotations

import http.client
import importlib
import time
import urllib.error
from collections.abc import Mapping
from typing import Any

from likewise.core.digests import sha256_json
from likewise.core.errors import AlreadyDeployed, DeployFailed
from likewise.core.option_fields import coerce
from likewise.core.proxies import OPENER, proxied
from likewise.core.spec import ModelSpec
from likewise.targets.ray import canary, store
from likewise.targets.ray.application import POLL_S, REMEDY, await_gone, await_running, deploy
from likewise.targets.ray.inspection import APP, applications, cluster_info, http_options, routes, url_of
from likewise.targets.ray.ray_options import RayOptions
from likewise.targets.ray.valid_options import require_valid

UNREACHABLE_S = 10.0  # after which a proxy is assumed to be unreachable from this machine


def look(params: Mapping[str, Any]) -> dict[str, Any]:
    """`cluster_info` for the options of a deployment.  Raises WrongUsage for options that Ray rejects."""
    require_valid(coerce(RayOptions, params["options"]))
    return cluster_info(params)


def run(params: Mapping[str, Any], *, restores: bool = False) -> dict[str, Any]:
    """Deploy or update `name` and wait until every replica is ready; returns its URL and the canary's figures.

    params: name, address, model (as a dict), options, shipment, create.  restores: this is the previous version, which
    is neither checked again nor tried by a canary.  Raises AlreadyDeployed (create, and another deployment has the
    name), DeployFailed with the message of Serve or for a canary that was rolled back, WrongUsage for options that Ray
    rejects.
    """
    app, key = APP + params["name"], _key(params)
    options = coerce(RayOptions, params["options"])
    if not restores:
        require_valid(options)
    record, apps = store.deployment_record(app), applications()
    same = record is not None and record["key"] == key and app in apps
    if params["create"] and app in apps and not same:
        raise AlreadyDeployed(f"{params['name']!r} is deployed on this Ray cluster", remedy="update it, or delete it")
    _require_route(app, options.prefix(params["name"]))
    figures: dict[str, Any] = {}
    if not restores and record and app in apps and not same and canary.applies(options, params, record, apps[app]):
        figures["canary"] = canary.evaluate(params, options, key)
    canary.remove(app)
    deadline = time.monotonic() + options.timeout_s
    if record is None or not same or record["state"] == "begun":
        _submit(app, params, options, record)
    await_running(params["name"], options, deadline, options.timeout_s)
    url = url_of(params["address"], http_options(), options.prefix(params["name"]))
    reached = _await_ready(url, ModelSpec.from_dict(params["model"]), deadline)
    store.put(f"app/{app}", {"state": "done", "key": key, **_content(params)})
    store.collect_garbage()
    return {"url": url, "application": app, "reached": reached, **figures}


def roll_back(params: Mapping[str, Any]) -> None:
    """Undo `run` with the same params: redeploy the previous version, or delete the deployment if there is none."""
    app = APP + params["name"]
    canary.remove(app)
    record = store.deployment_record(app)
    if record is None or record["key"] != _key(params):
        return
    if params.get("previous") is None:
        stop(params)
        return
    run({**params, **params["previous"], "create": False}, restores=True)


def _submit(app: str, params: Mapping[str, Any], options: RayOptions, record: Mapping[str, Any] | None) -> None:
    """Submit the application to Serve, which deploys it asynchronously; the previous record is stored as `before`."""
    transient = ("before", "canary")
    before = None if record is None else {name: value for name, value in record.items() if name not in transient}
    new_record = {"key": _key(params), "before": before, **_content(params)}
    store.put(f"app/{app}", {"state": "begun", **new_record})
    deploy(app, params, options, options.prefix(params["name"]))
    store.put(f"app/{app}", {"state": "deployed", **new_record})


def stop(params: Mapping[str, Any]) -> None:
    """Delete the application, if it exists, and wait until its replicas have stopped."""
    app = APP + params["name"]
    canary.remove(app)
    if app in applications():
        importlib.import_module("ray.serve").delete(app, _blocking=False)  # blocking, it would poll once a second
        await_gone(app)
    store.drop(f"app/{app}")
    store.collect_garbage()


def _await_ready(url: str, model: ModelSpec, deadline: float) -> bool:
    """Wait until the proxy serves this build; False if the proxy is unreachable from this machine."""
    header = "X-Likewise-Build" if model.build else "X-Likewise-Bundle"
    unreachable = time.monotonic() + UNREACHABLE_S
    while True:
        response = _ready(url, header)
        if response == (200, model.key):
            return True
        now = time.monotonic()
        if response is None and now > unreachable:
            return False
        if now > deadline:
            raise DeployFailed(f"{url}/ready returns {response}, expected 200 for {model.key}", remedy=REMEDY)
        time.sleep(POLL_S)


def _ready(url: str, header: str) -> tuple[int, str | None] | None:
    """Status and a header of the response; None if there is no response, or only that of the user's proxy."""
    try:
        with OPENER.open(f"{url}/ready", timeout=5.0) as response:
            return response.status, response.headers[header]
    except urllib.error.HTTPError as error:
        if header not in error.headers and proxied(url)[0]:
            return None
        return error.code, error.headers[header]
    except (OSError, http.client.HTTPException):
        return None


def _require_route(app: str, prefix: str) -> None:
    for name, route in routes().items():
        if name != app and route == prefix:
            raise AlreadyDeployed(
                f"the Serve application {name!r} already uses the route {prefix}",
                remedy="choose another name, or another route with -C route_prefix=/ROUTE",
            )


def _content(params: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": params["model"], "options": params["options"], "shipment": params["shipment"]}


def _key(params: Mapping[str, Any]) -> str:
    return sha256_json(_content(params))
