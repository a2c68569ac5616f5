"""The target `ray`: a bundle as a Ray Serve application."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from likewise.core.errors import NotDeployed, TargetUnavailable, WrongUsage
from likewise.core.option_fields import as_json, coerce
from likewise.core.spec import ModelSpec
from likewise.targets.base import Answer, Finding, JsonValue, Outputs, PlanStep, Receipt, Status, Verb, output_of
from likewise.targets.ray import serve_config
from likewise.targets.ray.preflight import needed, room_for
from likewise.targets.ray.ray_options import RayOptions
from likewise.targets.ray.session import ask

SHIP_S = 540.0
MARGIN_S = 60.0  # for what stands around the wait for the replicas
PREDICT_S = 120.0
UNWATCHED_S = 120.0  # since the last word of a canary's watcher, its start included
STATES = {
    "RUNNING": "ready",
    "DEPLOYING": "starting",
    "NOT_STARTED": "starting",
    "UNHEALTHY": "failing",
    "DEPLOY_FAILED": "failing",
    "DELETING": "gone",
}


class RayTarget:
    """Ray Serve on the cluster at `ray-serve://HOST:PORT` (Ray's client port), or on the one that this machine is in.

    Without an address it is the cluster that `RAY_ADDRESS` names, else the one that was started here.  All that Ray
    does is done in a process of its own.
    """

    Options: ClassVar[type] = RayOptions

    def __init__(self, uri: str) -> None:
        scheme, _, rest = uri.partition(":")
        if scheme not in ("ray", "ray-serve") or (rest and not rest.startswith("//")):
            raise WrongUsage(f"{uri!r} is no address of Ray", remedy="ray-serve, or ray-serve://HOST:10001")
        self._named = rest.removeprefix("//").rstrip("/")
        self.uri = f"ray-serve://{self._named}" if self._named else "ray-serve"  # one name for one cluster

    @property
    def address(self) -> str:
        """As Ray names it."""
        return f"ray://{self._named}" if self._named else os.environ.get("RAY_ADDRESS") or "auto"

    def check(self, model: ModelSpec, options: RayOptions) -> Sequence[Finding]:  # noqa: ARG002  one room a replica
        """Whether Ray is there, of our Ray's and Python's version, with room for the replicas."""
        try:
            seen = self._ask("look", {})
        except TargetUnavailable as error:
            return [Finding(error.cause, error.remedy)]
        return room_for(options, seen, options.replicas())

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: RayOptions, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """A deletion is one step; else the bundle is shipped and the application run."""
        prefix = options.prefix(name)
        if verb == "delete":
            return [PlanStep("stop", "stop", f"delete {name} from Ray Serve", {"name": name})]
        assert model is not None  # noqa: S101  only a deletion has none
        said = model.as_dict()
        ran = {
            "name": name,
            "model": said,
            "options": as_json(options),
            "shipment": output_of("ship", "shipment"),
            "create": verb == "create",
            "previous": _previous(current),
        }
        how = needed(options)
        first = f"try it on {options.canary:g} % of the requests, then " if options.canary and verb == "update" else ""
        return [
            PlanStep("ship", "ship", f"send the bundle {model.digest[:19]} to the cluster", {"model": said}),
            PlanStep("run", "run", f"{first}run {how} at {prefix} and wait until all are ready", ran),
        ]

    def do(self, action: str, params: Mapping[str, JsonValue]) -> Outputs:
        """Do one step; see `Target.do`."""
        if action not in ("ship", "run", "stop"):
            raise WrongUsage(f"Ray knows no step {action!r}", remedy="make the plan again with this version")
        given: Outputs | None = self._ask(action, params, _patience(params) if action == "run" else SHIP_S)
        return given or {}

    def undo(self, action: str, params: Mapping[str, JsonValue]) -> None:
        """Take back a step; a deletion is not taken back."""
        if action == "ship":
            self._ask("unship", params)
        elif action == "run":
            self._ask("take_back", params, _patience(params))

    def status(self, receipt: Receipt) -> Status:
        """As Serve says; replicas and Serve's message in the details."""
        seen = self._ask("status", {"name": receipt.name})
        if seen["status"] is None:
            return Status("gone", about=f"Ray Serve knows no {receipt.name!r}")
        state = STATES.get(seen["status"], "failing")
        noted = seen["noted"] or {}
        if state == "starting" and noted.get("before"):
            state = "updating"
        ready = sum(each["state"] == "RUNNING" for each in seen["replicas"])
        if seen["status"] == "UNHEALTHY" and ready:  # Serve's word for one replica that it cannot place, too
            state = "degraded"
        details = {key: seen[key] for key in ("status", "message", "replicas")}
        about = f"{ready} of {seen['target']} replicas run"
        if canary := noted.get("canary"):
            state = "updating" if state == "ready" else state
            details["canary"] = {"bundle": _bundle_of(canary), **{k: canary[k] for k in ("share", "seen", "at")}}
            about += f"; {_canary(canary)}"
        return Status(state, receipt.output("url"), about, details, _bundle_of(noted))  # type: ignore[arg-type]

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Answer:
        """The proxy's answer; NotDeployed where nothing of ours answers."""
        url = f"{receipt.output('url')}/invocations"
        request = urllib.request.Request(url, body, {"Content-Type": content_type})  # noqa: S310  Serve's own address
        try:
            with urllib.request.urlopen(request, timeout=PREDICT_S) as answer:  # noqa: S310
                return Answer(answer.status, answer.headers["Content-Type"], answer.read())
        except urllib.error.HTTPError as error:
            if error.code == 404 and "X-Likewise-Bundle" not in error.headers:
                raise _silent(receipt.name, url, "Ray Serve has nothing at this path") from error
            return Answer(error.code, error.headers["Content-Type"] or "", error.read())
        except (OSError, http.client.HTTPException) as error:
            raise _silent(receipt.name, url, str(error)) from error

    def found(self) -> Sequence[Receipt]:
        """Of all deployments of ours on the cluster, as they are noted there."""
        return [_receipt(self.uri, each) for each in self._ask("found", {})]

    def written(self, name: str, model: ModelSpec, options: RayOptions, bundle_at: str | None) -> str:
        """A config file of Serve's; see `serve_config`."""
        return serve_config.written(name, model, options, bundle_at)

    def _ask(self, action: str, params: Mapping[str, JsonValue], timeout_s: float = 60.0) -> Any:
        return ask(self.address, action, {**params, "address": self.address}, timeout_s=timeout_s)


def _receipt(uri: str, seen: Mapping[str, Any]) -> Receipt:
    noted = seen["noted"]
    since = datetime.fromtimestamp(seen["deployed_s"], UTC).isoformat(timespec="seconds")
    outputs = {"ship": {"shipment": noted["shipment"]}, "run": {"url": seen["url"]}}
    return Receipt(uri, seen["name"], ModelSpec.from_dict(noted["model"]), noted["options"], outputs, since, since)


def _previous(current: Receipt | None) -> dict[str, JsonValue] | None:
    if current is None:
        return None
    told = {"model": current.model.as_dict(), "options": dict(current.options)}
    return {**told, "shipment": current.output("shipment")}


def _patience(params: Mapping[str, JsonValue]) -> float:
    options = coerce(RayOptions, params["options"])
    before = (params.get("previous") or {}).get("options", {}).get("timeout_s", 0.0)
    watched = options.canary_timeout_s + options.canary_s if options.canary else 0.0
    return max(options.timeout_s, float(before)) + watched + MARGIN_S


def _canary(noted: Mapping[str, Any]) -> str:
    """Of a canary, in a line; one that nobody watches any more is named so."""
    digest, seen = noted["model"]["digest"][:19], noted["seen"]
    if time.time() - noted["at"] > UNWATCHED_S:
        return f"a canary of {digest} was left by an update that was cut off: update again, to any version"
    if seen is None:
        return f"a canary of {digest} starts"
    share = f"{noted['share']:g} % of the requests go to a canary of {digest}"
    return f"{share}: of {seen['new']['requests']} it failed {seen['new']['failed']}"


def _bundle_of(noted: Mapping[str, Any]) -> str | None:
    return noted["model"]["digest"] if noted else None


def _silent(name: str, url: str, why: str) -> NotDeployed:
    return NotDeployed(f"nothing answers for {name!r} at {url}: {why}", remedy=f"likewise status {name}")
