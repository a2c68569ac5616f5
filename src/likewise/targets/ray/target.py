"""The target `ray`: deploys a bundle as a Ray Serve application."""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from likewise.core.errors import NotDeployed, TargetUnavailable, WrongUsage
from likewise.core.option_fields import as_json, coerce
from likewise.core.proxies import OPENER, proxied
from likewise.core.spec import ModelSpec
from likewise.targets.base import (
    LOG_ENDS,
    DeploymentState,
    Finding,
    JsonValue,
    Outputs,
    PlanStep,
    Receipt,
    Response,
    Status,
    Traffic,
    Verb,
    output_of,
)
from likewise.targets.figures import traffic_of
from likewise.targets.http_client import PROBE_TIMEOUT_S, served_by
from likewise.targets.ray import serve_config
from likewise.targets.ray.preflight import capacity_findings, needed
from likewise.targets.ray.ray_options import RayOptions
from likewise.targets.ray.session import call

SHIP_S = 540.0  # time limit of the steps `ship` and `stop`
MARGIN_S = 60.0  # for work before and after the wait for the replicas
PREDICT_S = 120.0
LOG_POLL_S = 1.0
ABANDONED_S = 120.0  # after the last update from a canary's watcher, or from its start
STATES: Mapping[str, DeploymentState] = {
    "RUNNING": "ready",
    "DEPLOYING": "starting",
    "NOT_STARTED": "starting",
    "UNHEALTHY": "failing",
    "DEPLOY_FAILED": "failing",
    "DELETING": "gone",
}
_one_status = defaultdict[str, threading.Lock](threading.Lock)  # by address: each call starts a process with Ray
_ADDRESS = re.compile(r"//[^/?#@]*/?")  # Ray's client does not log in, so the address has no user and no query


class RayTarget:
    """Ray Serve on the cluster at `ray-serve://HOST:PORT` (Ray's client port), or on this machine's cluster.

    Without an address it is the cluster at `RAY_ADDRESS`, else the one that was started on this machine.  All Ray calls
    are made in a separate process.
    """

    Options: ClassVar[type] = RayOptions

    def __init__(self, uri: str) -> None:
        scheme, _, rest = uri.partition(":")
        if scheme not in ("ray", "ray-serve") or (rest and not _ADDRESS.fullmatch(rest)):
            raise WrongUsage(f"{uri!r} is not a valid Ray address", remedy="use ray-serve, or ray-serve://HOST:10001")
        self._host_port = rest.removeprefix("//").rstrip("/")
        self.uri = (
            f"ray-serve://{self._host_port}" if self._host_port else "ray-serve"
        )  # the same URI for the same cluster
        self._found = ""

    @property
    def address(self) -> str:
        """The address in Ray's notation."""
        return f"ray://{self._host_port}" if self._host_port else os.environ.get("RAY_ADDRESS") or "auto"

    def check(self, model: ModelSpec, options: RayOptions, current: Receipt | None = None) -> Sequence[Finding]:
        """Whether Ray is reachable, has the local versions of Ray and Python, and has resources for what is new.

        Raises WrongUsage for options that Ray rejects.
        """
        try:
            cluster = self._call("look", {"options": as_json(options), "name": current and current.name})
        except TargetUnavailable as error:
            return [Finding(error.cause, error.remedy, error=type(error))]
        self._found = f" at {cluster['address']}"
        return capacity_findings(model, options, cluster)

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: RayOptions, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """One step to delete; otherwise two steps: ship the bundle, run the application.

        The first names the cluster, if `check` has found it: without an address it may be another than expected.
        """
        prefix = options.prefix(name)
        if verb == "delete":
            return [PlanStep("stop", "stop", f"delete {name} from Ray Serve", {"name": name})]
        assert model is not None  # noqa: S101  only a deletion has no model
        model_dict = model.as_dict()
        ship_params = {"model": model_dict, **({"extras": ["telemetry"]} if options.traced() else {})}
        run_params = {
            "name": name,
            "model": model_dict,
            "options": as_json(options),
            "shipment": output_of("ship", "shipment"),
            "create": verb == "create",
            "previous": _previous(current),
        }
        replicas = needed(options)
        canary = f"try it on {options.canary:g} % of the requests, then " if options.canary and verb == "update" else ""
        return [
            PlanStep("ship", "ship", f"send the bundle {model.key[:19]} to the cluster{self._found}", ship_params),
            PlanStep("run", "run", f"{canary}run {replicas} at {prefix} and wait until all are ready", run_params),
        ]

    def do(self, action: str, params: Mapping[str, JsonValue]) -> Outputs:
        """Execute one step; see `Target.do`."""
        if action not in ("ship", "run", "stop"):
            raise WrongUsage(f"unknown step {action!r} for Ray", remedy="create the plan again with this version")
        outputs: Outputs | None = self._call(action, params, _timeout(params) if action == "run" else SHIP_S)
        return outputs or {}

    def undo(self, action: str, params: Mapping[str, JsonValue]) -> None:
        """Undo a step; a deletion cannot be undone."""
        if action == "ship":
            self._call("unship", params)
        elif action == "run":
            self._call("take_back", params, _timeout(params))

    def status(self, receipt: Receipt) -> Status:
        """The status according to Serve; `details` has its message, the replicas, and a running canary."""
        with _one_status[self.address]:
            reported = self._call("status", {"name": receipt.name})
        if reported["status"] is None:
            elsewhere = (
                "" if self._host_port else "; if it runs on another cluster, set RAY_ADDRESS to that one's address"
            )
            return Status("gone", about=f"Ray Serve at {self.address} has no deployment {receipt.name!r}{elsewhere}")
        state = state_of(reported)
        record = reported["noted"] or {}
        if state == "starting" and record.get("before"):
            state = "updating"
        ready = sum(each["state"] == "RUNNING" for each in reported["replicas"])
        if reported["status"] == "UNHEALTHY" and ready:  # Serve also reports this if it cannot place one replica
            state = "degraded"
        details = {key: reported[key] for key in ("status", "message", "replicas")}
        about = f"{ready} of {reported['target'] or 'its'} replicas are running"
        if state == "failing":
            about += f": {reported['reason']}"
        if canary := record.get("canary"):
            state = "updating" if state == "ready" else state
            details["canary"] = {
                **dict(zip(("bundle", "build"), _digests(canary), strict=True)),
                **{k: canary[k] for k in ("share", "seen", "at")},
            }
            about += f"; {_canary_status(canary)}"
        url = receipt.output("url")
        return Status(state, url, about, details, *_digests(record), engine=_engine_at(url) if ready else None)

    def traffic(self, receipt: Receipt) -> Traffic:
        """The sum of the figures in the metrics pages of all replicas that respond."""
        return traffic_of(self._call("metrics", {"name": receipt.name}))

    def logs(self, receipt: Receipt, lines: int, follow: bool) -> Iterator[str]:
        """What each replica has printed, with Serve's log; `lines` of each file, which start with the replica's id."""
        read = self._read_logs(receipt.name, lines, {})
        if not read["exists"]:
            remedy = "`likewise list` shows all deployments"
            raise NotDeployed(f"Ray Serve has no deployment {receipt.name!r}", remedy=remedy)
        return self._log_lines(receipt.name, read, follow)

    def _log_lines(self, name: str, read: Mapping[str, Any], follow: bool) -> Iterator[str]:
        positions: dict[str, int] = {}
        while True:
            for file in read["files"]:
                positions[file["file"]] = file["position"]
                yield from (f"{file['replica']}: {line}" for line in file["lines"])
            if not follow:
                return
            if not read["exists"]:
                yield LOG_ENDS
                return
            time.sleep(LOG_POLL_S)
            read = self._read_logs(name, None, positions)

    def _read_logs(self, name: str, lines: int | None, positions: Mapping[str, int]) -> Any:
        return self._call("logs", {"name": name, "lines": lines, "positions": positions})

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Response:
        """The response of Serve's HTTP proxy; raises NotDeployed if it cannot be reached or has no such route."""
        url = f"{receipt.output('url')}/invocations"
        request = urllib.request.Request(url, body, {"Content-Type": content_type})  # noqa: S310  Serve's own address
        try:
            with OPENER.open(request, timeout=PREDICT_S) as response:
                return Response(response.status, response.headers["Content-Type"], response.read())
        except urllib.error.HTTPError as error:
            if "X-Likewise-Bundle" not in error.headers and (error.code == 404 or proxied(url)[0]):
                reason = "Ray Serve has no application at this path" if error.code == 404 else str(error)
                raise _no_response(receipt.name, url, reason) from error
            return Response(error.code, error.headers["Content-Type"] or "", error.read())
        except (OSError, http.client.HTTPException) as error:
            raise _no_response(receipt.name, url, str(error)) from error

    def found(self) -> Sequence[Receipt]:
        """The receipts of Likewise's deployments on the cluster, from the records that are stored there."""
        return [_receipt(self.uri, deployment) for deployment in self._call("found", {})]

    def written(
        self, name: str, model: ModelSpec, options: RayOptions, bundle_at: str | None, image: str | None
    ) -> str:
        """The text of a Serve config file or a RayService that deploys this; see `serve_config.render`."""
        return serve_config.render(name, model, options, bundle_at, image)

    def _call(self, action: str, params: Mapping[str, JsonValue], timeout_s: float = 60.0) -> Any:
        return call(self.address, action, {**params, "address": self.address}, timeout_s=timeout_s)


def state_of(application: Mapping[str, Any]) -> DeploymentState:
    """The state of an application with Serve's `status`."""
    return STATES.get(application["status"], "failing")


def _engine_at(url: str) -> str | None:
    """The label of the engine at `url`, None without a response within PROBE_TIMEOUT_S."""
    try:
        with OPENER.open(f"{url}/ready", timeout=PROBE_TIMEOUT_S) as response:
            return served_by(response.headers).engine
    except (OSError, http.client.HTTPException):
        return None


def _receipt(uri: str, deployment: Mapping[str, Any]) -> Receipt:
    """The receipt of a deployment as the agent's action `found` reports it."""
    record = deployment["noted"]
    since = datetime.fromtimestamp(deployment["deployed_s"], UTC).isoformat(timespec="seconds")
    outputs = {"ship": {"shipment": record["shipment"]}, "run": {"url": deployment["url"]}}
    return Receipt(
        uri, deployment["name"], ModelSpec.from_dict(record["model"]), record["options"], outputs, since, since
    )


def _previous(current: Receipt | None) -> dict[str, JsonValue] | None:
    if current is None:
        return None
    previous = {"model": current.model.as_dict(), "options": dict(current.options)}
    return {**previous, "shipment": current.output("shipment")}


def _timeout(params: Mapping[str, JsonValue]) -> float:
    """Seconds that the step `run` may take, or its undoing."""
    options = coerce(RayOptions, params["options"])
    before = (params.get("previous") or {}).get("options", {}).get("timeout_s", 0.0)
    watched = options.canary_timeout_s + options.canary_s if options.canary else 0.0
    return max(options.timeout_s, float(before)) + watched + MARGIN_S


def _canary_status(record: Mapping[str, Any]) -> str:
    """One line about a canary; includes a note if no process watches the canary any more."""
    digest, seen = ModelSpec.from_dict(record["model"]).key[:19], record["seen"]
    if time.time() - record["at"] > ABANDONED_S:
        return f"a canary of {digest} was left by an interrupted update: update again, to any version"
    if seen is None:
        return f"a canary of {digest} is starting"
    share = f"{record['share']:g} % of the requests go to a canary of {digest}"
    return f"{share}: {seen['new']['failed']} of {seen['new']['requests']} failed"


def _digests(record: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The model digest and the build digest of a record's model."""
    return (record["model"]["digest"], record["model"].get("build")) if record else (None, None)


def _no_response(name: str, url: str, reason: str) -> NotDeployed:
    via, advice = proxied(url)
    remedy = f"check it with: likewise status {name}{advice}"
    return NotDeployed(f"no response from {name!r} at {url}{via}: {reason}", remedy=remedy)
