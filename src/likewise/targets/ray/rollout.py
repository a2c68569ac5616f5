"""One Serve application a deployment: started, updated, awaited, taken back; runs in the agent."""

from __future__ import annotations

import http.client
import importlib
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from likewise.core.digests import sha256_json
from likewise.core.errors import AlreadyDeployed, DeployFailed
from likewise.core.option_fields import coerce
from likewise.targets.ray import canary, store
from likewise.targets.ray.application import HOW, POLL_S, await_gone, await_running, deploy
from likewise.targets.ray.inspection import APP, applications, http_options, url_of
from likewise.targets.ray.ray_options import RayOptions

UNREACHED_S = 10.0  # after which a proxy that this machine cannot reach is left to those who can


def run(params: Mapping[str, Any], *, careful: bool = True) -> dict[str, Any]:
    """Deploy or update `name` and wait until every replica is ready; where it answers, and what a canary has shown.

    params: name, address, model (as a dict), options, shipment, create.  careful: a canary first, where one is asked
    for.  Raises AlreadyDeployed (create, and something else stands there), DeployFailed with Serve's own words or for a
    canary that was rolled back, WrongUsage for options that Ray refuses.
    """
    app, key = APP + params["name"], _key(params)
    options = coerce(RayOptions, params["options"])
    noted, there = store.noted(app), applications()
    same = noted is not None and noted["key"] == key and app in there
    if params["create"] and app in there and not same:
        raise AlreadyDeployed(f"{params['name']!r} is deployed on this Ray cluster", remedy="update it, or delete it")
    _require_route(app, options.prefix(params["name"]), there)
    seen: dict[str, Any] = {}
    if careful and noted and app in there and not same and canary.wanted(options, params, noted, there[app]):
        seen["canary"] = canary.tried(params, options, key)
    canary.drop(app)
    deadline = time.monotonic() + options.timeout_s
    if noted is None or not same or noted["state"] == "begun":
        _hand_over(app, params, options, noted)
    await_running(params["name"], options, deadline, options.timeout_s)
    url = url_of(params["address"], http_options(), options.prefix(params["name"]))
    reached = _await_ready(url, params["model"]["digest"], deadline)
    store.put(f"app/{app}", {"state": "done", "key": key, **_told(params)})
    store.collect()
    return {"url": url, "application": app, "reached": reached, **seen}


def take_back(params: Mapping[str, Any]) -> None:
    """What `run` with the same params has begun: the version before it is deployed again, or nothing is left."""
    app = APP + params["name"]
    canary.drop(app)
    noted = store.noted(app)
    if noted is None or noted["key"] != _key(params):
        return
    if params.get("previous") is None:
        stop(params)
        return
    run({**params, **params["previous"], "create": False}, careful=False)


def _hand_over(app: str, params: Mapping[str, Any], options: RayOptions, noted: Mapping[str, Any] | None) -> None:
    """To Serve, which goes on by itself; what was there before stays noted."""
    passing = ("before", "canary")
    before = None if noted is None else {name: value for name, value in noted.items() if name not in passing}
    told = {"key": _key(params), "before": before, **_told(params)}
    store.put(f"app/{app}", {"state": "begun", **told})
    deploy(app, params, options, options.prefix(params["name"]))
    store.put(f"app/{app}", {"state": "deployed", **told})


def stop(params: Mapping[str, Any]) -> None:
    """Delete the application, and wait until its replicas have gone; nothing where it is not there."""
    app = APP + params["name"]
    canary.drop(app)
    if app in applications():
        importlib.import_module("ray.serve").delete(app, _blocking=False)  # which would look once a second
        await_gone(app)
    store.drop(f"app/{app}")
    store.collect()


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
            raise DeployFailed(f"{url}/ready answers {answer}, and not 200 for {digest}", remedy=HOW)
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


def _told(params: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": params["model"], "options": params["options"], "shipment": params["shipment"]}


def _key(params: Mapping[str, Any]) -> str:
    return sha256_json(_told(params))
