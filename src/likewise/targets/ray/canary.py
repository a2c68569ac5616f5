"""A new version tried on a share of the requests before it replaces the old one; runs in the agent.

It is a Serve application without a route.  The old version's replicas send it the share, and are told so anew at every
beat: one that hears nothing any more keeps its requests, so a watcher that was killed leaves nothing that harms.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping
from typing import Any

from likewise.core.errors import DeployFailed
from likewise.targets.ray import store
from likewise.targets.ray.application import await_gone, await_running, deploy, version_of
from likewise.targets.ray.inspection import APP, DEPLOYMENT, applications
from likewise.targets.ray.ray_options import RayOptions
from likewise.targets.ray.verdict import Rules, Verdict, decide
from likewise.targets.ray.version_stats import Side

MARK = "~canary"  # after the name: no deployment's name may hold it
BEAT_S = 0.5
LEASE_S = 5.0
SILENT_S = 20.0  # without a word of any replica of the old version

_MEND = "the old version answers as before; mend the new one, or allow more by canary_errors, canary_slower, …"


def tried(params: Mapping[str, Any], options: RayOptions, key: str) -> dict[str, Any]:
    """What was seen of the version in `params`, which is good enough to replace the old one.

    outcome, why, start_s (until it was ready), seconds (of the watch), old and new: see `Side.told`.  The same canary
    that a killed process has left is watched, not started again.  Raises DeployFailed where it is not good enough; no
    canary is left in either case.
    """
    app, began = APP + params["name"], time.monotonic()
    try:
        _start(params, options, key)
        start_s = round(time.monotonic() - began, 1)
        verdict, watch = _watched(app, options)
    finally:
        drop(app)
    told = watch.told()
    if verdict.kind == "roll_back":
        cause = (
            f"the canary of {params['name']!r} was rolled back, {watch.seconds:.0f} s after it was ready: {verdict.why}"
        )
        raise DeployFailed(f"{cause}; {_figures(told)}", remedy=_MEND)
    return {"outcome": "promoted", "why": verdict.why, "start_s": start_s, **told}


def wanted(options: RayOptions, params: Mapping[str, Any], noted: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether there is another version than what is `noted`, and an old one that answers (`old`: as Serve tells)."""
    answers = getattr(old["status"], "value", old["status"]) == "RUNNING" and noted["state"] == "done"
    return bool(options.canary) and answers and version_of(params) != version_of(noted)


def drop(app: str) -> None:
    """Nothing of a canary beside `app` is left; nothing where none is.  Its replicas may still be stopping."""
    if store.get(f"canary/{app}") is None and app + MARK not in applications():
        return
    if app + MARK in applications():
        importlib.import_module("ray.serve").delete(app + MARK, _blocking=False)
    store.drop(f"canary/{app}")


def _start(params: Mapping[str, Any], options: RayOptions, key: str) -> None:
    """The canary runs and is ready; DeployFailed."""
    app, kind = APP + params["name"], options.as_canary()
    left = store.get(f"canary/{app}")
    if left is None or left["key"] != key or app + MARK not in applications():
        drop(app)
        await_gone(app + MARK)
        said = {"key": key, "model": params["model"], "shipment": params["shipment"], "share": options.canary}
        store.put(f"canary/{app}", {**said, "seen": None, "at": time.time()})
        deploy(app + MARK, params, kind, None)
    given = min(options.canary_timeout_s, options.timeout_s)
    try:
        await_running(params["name"] + MARK, kind, time.monotonic() + given, given)
    except DeployFailed as error:
        cause = f"the canary of {params['name']!r} was rolled back, and got no request: {error.cause}"
        raise DeployFailed(cause, remedy=f"{error.remedy}; canary_timeout_s is the time for its start") from error


class CanaryWatch:
    """What the replicas of the old version tell. seconds: in which they were heard."""

    def __init__(self, app: str, options: RayOptions) -> None:
        self.seconds = 0.0
        self._app = app
        self._told = {
            "run": os.urandom(8).hex(),
            "app": app + MARK,
            "deployment": DEPLOYMENT,
            "share": options.canary,
            "lease_s": LEASE_S,
            "deadline_s": options.deadline_s,
            "body_limit_bytes": options.body_limit_bytes,
        }
        self._figures: dict[str, dict[str, Any]] = {}
        ray = importlib.import_module("ray")
        store.by_value()
        relay = importlib.import_module("likewise.targets.ray.replica").Relay
        self._relay = ray.remote(num_cpus=0)(relay).remote(DEPLOYMENT, app)
        self._on = False
        self._heard = time.monotonic()

    def beat(self) -> None:
        """Another lease for every replica; DeployFailed where none has been heard for SILENT_S."""
        heard, now = self._tell("watch", self._told), time.monotonic()
        if heard:
            if self._on:
                self.seconds += min(now - self._heard, LEASE_S)  # a watcher that was asleep did not watch
            self._on, self._heard = True, now
        elif now - self._heard > SILENT_S:
            cause = f"the canary was rolled back: no replica of the old version was heard for {SILENT_S:.0f} s"
            raise DeployFailed(cause, remedy="look at the replicas with `likewise status`, then update again")

    def end(self) -> None:
        """The replicas keep their requests from now on."""
        self._tell("unwatch", self._told["run"])

    def sides(self) -> tuple[Side, Side]:
        """The old and the new version, over all replicas, those that have gone meanwhile included."""
        return tuple(Side.sum(each[side] for each in self._figures.values()) for side in ("old", "new"))  # type: ignore[return-value]

    def told(self) -> dict[str, Any]:
        """For receipts and `status`: seconds, old, new, and what the canary last said when it failed."""
        old, new = self.sides()
        said = next((each["said"] for each in self._figures.values() if each["said"]), "")
        return {"seconds": round(self.seconds, 1), "old": old.told(), "new": new.told(), "said": said}

    def _tell(self, method: str, argument: Any) -> bool:
        """Whether anybody answered."""
        ray = importlib.import_module("ray")
        try:
            answers = ray.get(self._relay.tell.remote(method, argument, LEASE_S), timeout=2 * LEASE_S)
        except Exception:  # noqa: BLE001  no replica just now, or no answer in time: the next beat asks again
            return False
        self._figures |= {each["token"]: each for each in answers}
        return bool(answers)


def _watched(app: str, options: RayOptions) -> tuple[Verdict, CanaryWatch]:
    rules = Rules(options.canary_s, options.canary_requests, options.canary_errors / 100, options.canary_slower)
    watch, noted = CanaryWatch(app, options), store.get(f"canary/{app}") or {}
    while (verdict := decide(*watch.sides(), watch.seconds, rules)).kind == "wait":
        time.sleep(BEAT_S)
        watch.beat()
        store.put(f"canary/{app}", {**noted, "seen": watch.told(), "at": time.time()})
    watch.end()
    return verdict, watch


def _figures(told: Mapping[str, Any]) -> str:
    """Both versions in a line."""
    sides = ", ".join(
        f"{side}: {each['requests']} requests, {each['failed']} failed, p50 {each['p50_ms']:g} ms, "
        f"p95 {each['p95_ms']:g} ms"
        for side, each in (("old", told["old"]), ("new", told["new"]))
    )
    return f"{sides}; it said: {told['said']}" if told["said"] else sides
