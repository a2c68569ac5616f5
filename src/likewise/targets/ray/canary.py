"""A canary: a new version that gets a fraction of the requests before it replaces the old one; runs in the agent.

It is a Serve application without a route.  The old version's replicas forward this fraction to it under a lease that
the watcher renews at every heartbeat: when the lease expires, a replica handles all requests itself, so a watcher that
was killed causes no harm.
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
from likewise.targets.ray.inspection import APP, CANARY, DEPLOYMENT, applications
from likewise.targets.ray.ray_options import RayOptions
from likewise.targets.ray.verdict import Rules, Verdict, decide
from likewise.targets.ray.version_stats import VersionStats

HEARTBEAT_S = 0.5
LEASE_S = 5.0
SILENCE_TIMEOUT_S = 20.0  # the canary is rolled back if no replica of the old version responds for so long

_REMEDY = "the old version serves all requests; fix the new one, or raise canary_errors, canary_slower, …"


def evaluate(params: Mapping[str, Any], options: RayOptions, key: str) -> dict[str, Any]:
    """Run the version in `params` as a canary; returns its figures if it may replace the old version.

    The result has the keys outcome, why, start_s (until it was ready), seconds (of the watch), old and new (see
    `VersionStats.summary`).  If a killed process has left the same canary, it is watched and not started again.  Raises
    DeployFailed if it must not replace the old version; the canary is removed in either case.
    """
    app, started = APP + params["name"], time.monotonic()
    try:
        _start(params, options, key)
        start_s = round(time.monotonic() - started, 1)
        verdict, watch = _watch(app, options)
    finally:
        remove(app)
    figures = watch.summary()
    if verdict.kind == "roll_back":
        cause = (
            f"the canary of {params['name']!r} was rolled back, {watch.seconds:.0f} s after it was ready: {verdict.why}"
        )
        raise DeployFailed(f"{cause}; {_figures_text(figures)}", remedy=_REMEDY)
    return {"outcome": "promoted", "why": verdict.why, "start_s": start_s, **figures}


def applies(options: RayOptions, params: Mapping[str, Any], record: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a canary is requested, the version differs from the one in `record`, and the old one is serving.

    record: the stored deployment.  old: its application as Serve reports it.
    """
    serving = old["status"] == "RUNNING" and record["state"] == "done"
    return bool(options.canary) and serving and version_of(params) != version_of(record)


def remove(app: str) -> None:
    """Delete the canary of `app`, if there is one.  Its replicas may still be stopping afterwards."""
    if store.get(f"canary/{app}") is None and app + CANARY not in applications():
        return
    if app + CANARY in applications():
        importlib.import_module("ray.serve").delete(app + CANARY, _blocking=False)
    store.drop(f"canary/{app}")


def _start(params: Mapping[str, Any], options: RayOptions, key: str) -> None:
    """Start the canary and wait until it is ready; raises DeployFailed."""
    app, canary_options = APP + params["name"], options.as_canary()
    record = store.get(f"canary/{app}")
    if record is None or record["key"] != key or app + CANARY not in applications():
        remove(app)
        await_gone(app + CANARY)
        record = {"key": key, "model": params["model"], "shipment": params["shipment"], "share": options.canary}
        store.put(f"canary/{app}", {**record, "seen": None, "at": time.time()})
        deploy(app + CANARY, params, canary_options, None)
    timeout_s = min(options.canary_timeout_s, options.timeout_s)
    try:
        await_running(params["name"] + CANARY, canary_options, time.monotonic() + timeout_s, timeout_s)
    except DeployFailed as error:
        cause = f"the canary of {params['name']!r} was rolled back before it got any request: {error.cause}"
        raise DeployFailed(cause, remedy=f"{error.remedy}; canary_timeout_s limits the time for its start") from error


class CanaryWatch:
    """Collects statistics from the old version's replicas. seconds: the time during which they have responded."""

    def __init__(self, app: str, options: RayOptions) -> None:
        self.seconds = 0.0
        self._app = app
        self._request = {
            "run": os.urandom(8).hex(),
            "app": app + CANARY,
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
        self._active = False
        self._last_response = time.monotonic()

    def renew(self) -> None:
        """Renew the lease of every replica; raises DeployFailed if none has responded for SILENCE_TIMEOUT_S."""
        responded, now = self._broadcast("watch", self._request), time.monotonic()
        if responded:
            if self._active:
                self.seconds += min(now - self._last_response, LEASE_S)  # without time in which this process slept
            self._active, self._last_response = True, now
        elif now - self._last_response > SILENCE_TIMEOUT_S:
            cause = f"the canary was rolled back: no replica of the old version responded for {SILENCE_TIMEOUT_S:.0f} s"
            raise DeployFailed(cause, remedy="check the replicas with `likewise status`, then update again")

    def end(self) -> None:
        """End the lease: the replicas handle all requests themselves."""
        self._broadcast("unwatch", self._request["run"])

    def stats(self) -> tuple[VersionStats, VersionStats]:
        """The old and the new version, over all replicas, including those that have stopped since."""
        old, new = (VersionStats.sum(each[side] for each in self._figures.values()) for side in ("old", "new"))
        return old, new

    def summary(self) -> dict[str, Any]:
        """For receipts and `status`: seconds, old, new, and the canary's last error message under the key "said"."""
        old, new = self.stats()
        message = next((each["said"] for each in self._figures.values() if each["said"]), "")
        return {"seconds": round(self.seconds, 1), "old": old.summary(), "new": new.summary(), "said": message}

    def _broadcast(self, method: str, argument: Any) -> bool:
        """Call `method` on all replicas and store their figures; whether any replica responded."""
        ray = importlib.import_module("ray")
        try:
            responses = ray.get(self._relay.broadcast.remote(method, argument, LEASE_S), timeout=2 * LEASE_S)
        except Exception:  # noqa: BLE001  no replica, or no response in time: the next heartbeat retries
            return False
        self._figures |= {each["token"]: each for each in responses}
        return bool(responses)


def _watch(app: str, options: RayOptions) -> tuple[Verdict, CanaryWatch]:
    rules = Rules(options.canary_s, options.canary_requests, options.canary_errors / 100, options.canary_slower)
    watch, record = CanaryWatch(app, options), store.get(f"canary/{app}") or {}
    while (verdict := decide(*watch.stats(), watch.seconds, rules)).kind == "wait":
        time.sleep(HEARTBEAT_S)
        watch.renew()
        store.put(f"canary/{app}", {**record, "seen": watch.summary(), "at": time.time()})
    watch.end()
    return verdict, watch


def _figures_text(figures: Mapping[str, Any]) -> str:
    """The figures of both versions in one line."""
    sides = ", ".join(
        f"{side}: {each['requests']} requests, {each['failed']} failed, p50 {each['p50_ms']:g} ms, "
        f"p95 {each['p95_ms']:g} ms"
        for side, each in (("old", figures["old"]), ("new", figures["new"]))
    )
    return f"{sides}; last error: {figures['said']}" if figures["said"] else sides
