"""The target `container`: a listener container that owns the port, and a container per version, in Docker or Podman."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from likewise.core.digests import sha256_json
from likewise.core.errors import NotDeployed, WrongUsage
from likewise.core.option_fields import as_json
from likewise.core.private_files import open_private, private_folder
from likewise.core.spec import ModelSpec
from likewise.receipts import data_home
from likewise.targets.base import (
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
from likewise.targets.container import inspection
from likewise.targets.container.actions import ACTIONS, Action
from likewise.targets.container.container_options import ContainerTargetOptions, check_options
from likewise.targets.container.inspection import DeploymentContainers
from likewise.targets.container.log_lines import log_lines
from likewise.targets.container.program import Program
from likewise.targets.container.status import receipt_of, status_of
from likewise.targets.figures import traffic_of
from likewise.targets.http_client import invoke, metrics_page

URIS = {f"container{form}": None for form in ("", ":", "://")} | {
    f"container{form}{program}": program for form in (":/", "://") for program in ("docker", "podman")
}
OTHER_VERSION = "the plan was made by another version of Likewise: use that version to complete it"
DEADLINE_S = 55.0  # the default deadline of the container's server
_LISTENER_OPTIONS = ("host", "port", "network", "user")  # an update cannot change them


class ContainerTarget:
    """Deployments are identified by labels on their containers; there is no other state."""

    Options: ClassVar[type[ContainerTargetOptions]] = ContainerTargetOptions

    def __init__(self, uri: str) -> None:
        if uri not in URIS:
            known = "container, container:/docker, container:/podman"
            address = uri.rpartition("@")[2]  # a password may precede it
            raise WrongUsage(
                f"the target container does not accept the address {address!r}", remedy=f"use one of: {known}"
            )
        self._engine = URIS[uri]
        self.uri = f"container:/{self._engine}" if self._engine else "container"

    @cached_property
    def program(self) -> Program:
        """The engine's command.  Raises TargetUnavailable if no engine responds."""
        return Program.find(self._engine)

    # --- plans -------------------------------------------------------------------------------------------------------

    def check(
        self,
        model: ModelSpec,  # noqa: ARG002
        options: ContainerTargetOptions,
        current: Receipt | None = None,  # noqa: ARG002
    ) -> Sequence[Finding]:
        """Check the options, and that an engine responds.  Raises WrongUsage, TargetUnavailable."""
        check_options(options)
        self.program.platform()
        return []

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: ContainerTargetOptions, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """Raises WrongUsage, NotDeployed, TargetUnavailable."""
        inspection.check_name(name)
        containers = inspection.deployment(self.program, name)
        if verb != "create" and current is None and not (containers.versions or containers.listener):
            raise _not_deployed(name)
        if model is None:
            return _delete_steps(name, options)
        if verb == "update":
            _check_unchanged(options, containers)
        return _serve_steps(verb, name, model, options, containers)

    def do(self, action: str, params: Mapping[str, JsonValue]) -> Outputs:
        """Execute one step; see `actions`."""
        execute, _ = _action(action)
        with _locked(self.program, params["name"]) as program:
            return execute(program, params)

    def undo(self, action: str, params: Mapping[str, JsonValue]) -> None:
        """Undo what this step has created; containers that existed before are kept."""
        _, undo = _action(action)
        with _locked(self.program, params["name"]) as program:
            undo(program, params)

    # --- existing deployments ----------------------------------------------------------------------------------------

    def status(self, receipt: Receipt) -> Status:
        """The state reported by the engine, checked by an HTTP request.  Raises TargetUnavailable."""
        return status_of(self.program, inspection.deployment(self.program, receipt.name))

    def traffic(self, receipt: Receipt) -> Traffic:
        """The figures in the current version's metrics page, which start again with each version and each restart."""
        listener = inspection.deployment(self.program, receipt.name).listener
        if listener is None:
            raise _not_deployed(receipt.name)
        return traffic_of([metrics_page(listener.labels[inspection.URL], {})])

    def logs(self, receipt: Receipt, lines: int, follow: bool) -> Iterator[str]:
        """The log of the current version, also if it has exited."""
        current = inspection.deployment(self.program, receipt.name).current
        if current is None:
            raise _not_deployed(receipt.name)
        return log_lines(self.program, receipt.name, current, lines, follow)

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Response:
        """Raises NotDeployed, TargetUnavailable."""
        containers = inspection.deployment(self.program, receipt.name)
        if containers.listener is None:
            raise _not_deployed(receipt.name)
        env = {} if containers.current is None else containers.current.options["env"]
        deadline_s = float(env.get("LIKEWISE_DEADLINE_S") or DEADLINE_S)
        url = containers.listener.labels[inspection.URL]
        return invoke(url, {"Content-Type": content_type}, body, deadline_s=deadline_s, name=receipt.name)

    def found(self) -> Sequence[Receipt]:
        """The receipts of all deployments that have a version's container."""
        existing = inspection.deployments(self.program)
        receipts = [receipt_of(self.uri, name, containers) for name, containers in existing.items()]
        return [receipt for receipt in receipts if receipt is not None]


def _not_deployed(name: str) -> NotDeployed:
    return NotDeployed(f"there is no deployment named {name!r}", remedy="run `likewise list` to see all deployments")


@contextmanager
def _locked(program: Program, name: str) -> Iterator[Program]:
    """Lock the deployment.  The engine's commands inherit the lock, so it includes those of a killed process."""
    folder = private_folder(data_home() / "container")
    path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock"
    with os.fdopen(open_private(path), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield program.locked(lock.fileno())


def _action(action: str) -> Action:
    if action not in ACTIONS:
        raise WrongUsage(f"the target container has no action {action!r}", remedy=OTHER_VERSION)
    return ACTIONS[action]


def _serve_steps(
    verb: Verb, name: str, model: ModelSpec, options: ContainerTargetOptions, containers: DeploymentContainers
) -> Sequence[PlanStep]:
    document = _absolute_paths(as_json(options))
    claim = sha256_json([{**model.as_dict(), "folder": ""}, document])
    common = {"verb": verb, "name": name, "claim": claim, "options": document, "model": model.as_dict()}
    with_image = {**common, "image": output_of("image", "image")}
    start = {**with_image, "url": output_of("door", "url"), "stood": list(containers.running)}
    address = f"{options.host}:{options.port}" if options.port else f"a free port of {options.host}"
    about = f"uses the image {options.image}" if options.image else "builds the image and loads it into the engine"
    steps = [
        PlanStep("image", "image", about, common),
        PlanStep("door", "door", f"listens on {address} for all versions", with_image),
        PlanStep("start", "start", "starts the container and waits until it is ready", start),
    ]
    if verb == "create":
        return steps
    after = {**common, "url": output_of("door", "url"), "container": output_of("start", "container")}
    retire = {**after, "stood": start["stood"]}
    return [
        *steps,
        PlanStep("retire", "retire", "stops the previous version, which completes its requests", retire),
        PlanStep("tidy", "tidy", "removes versions older than the previous one", after),
    ]


def _absolute_paths(options: dict[str, Any]) -> dict[str, Any]:
    """The options with absolute paths: an interrupted plan may be resumed in another working directory."""
    paths = {key: options[key] for key in ("base", "wheels", "lock") if options[key] and Path(options[key]).exists()}
    return {**options, **{key: str(Path(path).absolute()) for key, path in paths.items()}}


def _delete_steps(name: str, options: ContainerTargetOptions) -> Sequence[PlanStep]:
    params = {"name": name, "options": as_json(options)}
    return [
        PlanStep("stop", "stop", "completes requests in flight, then stops the containers", params),
        PlanStep("remove", "remove", "removes the containers, the volume, and the images built for them", params),
    ]


def _check_unchanged(options: ContainerTargetOptions, containers: DeploymentContainers) -> None:
    """Raise WrongUsage if the options would change the listener container."""
    if containers.listener is None:
        return
    current, url = containers.listener.options, containers.listener.labels[inspection.URL]
    for key in _LISTENER_OPTIONS:
        value = getattr(options, key)
        if value != current[key] and not (key == "port" and url.endswith(f":{value}")):
            raise WrongUsage(
                f"the deployment at {url} has {key}={current[key]}, which an update cannot change",
                remedy="to change it, delete the deployment and deploy it again",
            )
