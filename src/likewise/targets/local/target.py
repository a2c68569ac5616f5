"""The target `local`: a background service of the current user on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from likewise.bundles.format import MANIFEST, load_manifest
from likewise.core.errors import AlreadyDeployed, NotDeployed, WrongUsage
from likewise.core.option_fields import as_json
from likewise.core.spec import ModelSpec
from likewise.receipts import data_home
from likewise.server.auth import Tokens, authorization
from likewise.targets.base import Finding, Outputs, PlanStep, Receipt, Response, Status, Traffic, Verb, output_of
from likewise.targets.figures import traffic_of
from likewise.targets.http_client import Health, health, invoke, metrics_page
from likewise.targets.local.control import SupervisorUnavailable
from likewise.targets.local.deployment_folder import Deployment, DeploymentFolder, ServiceSpec, deployed_in
from likewise.targets.local.installation import install, keep_only
from likewise.targets.local.launch import start, status_of, stop, switch
from likewise.targets.local.local_options import LocalOptions
from likewise.targets.local.log_lines import log_lines

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
OTHER_VERSION = "the plan was made by another version of Likewise: use that version to complete it"
RESTART = "run `likewise update NAME` to restart it with its last model and options"


class LocalTarget:
    """Each deployment is a folder, a supervisor process and the service that it keeps running."""

    Options: ClassVar[type[LocalOptions]] = LocalOptions

    def __init__(self, uri: str) -> None:
        if uri not in ("local", "local:", "local://"):
            raise WrongUsage(f"the target local does not accept the address {uri!r}", remedy="use --to local")
        self.uri = "local"

    # --- plans -------------------------------------------------------------------------------------------------------

    def check(self, model: ModelSpec, options: LocalOptions, current: Receipt | None = None) -> Sequence[Finding]:  # noqa: ARG002
        """Check that the token file is valid."""
        findings = []
        if options.token_file is not None:
            try:
                Tokens(options.token_file)
            except WrongUsage as error:
                findings.append(Finding(error.cause, error.remedy))
        return findings

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: LocalOptions, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """Raises WrongUsage, AlreadyDeployed, NotDeployed."""
        folder = _folder(name)
        deployment = folder.read()
        if verb == "delete":
            _require(name, deployment, current)
            about = "completes requests in flight, then stops the service and its supervisor"
            return [
                PlanStep("stop", "stop", about, {"name": name}),
                PlanStep("remove", "remove", f"removes {folder.path}", {"name": name}),
            ]
        assert model is not None  # noqa: S101  only a deletion has none
        spec = _spec(model, options)
        if verb == "create":
            if current is not None:
                raise AlreadyDeployed(f"{name!r} is already deployed here", remedy=f"likewise update {name} MODEL")
            return [_install_step(folder, model), _start_step(name, spec, options)]
        _require(name, deployment, current)
        return [_install_step(folder, model), *_switch_steps(name, spec, options, deployment)]

    def do(self, action: str, params: Mapping[str, Any]) -> Outputs:
        """Execute a step; see the modules `installation` and `launch` for the errors."""
        folder = _folder(params["name"])
        match action:
            case "place":
                return {"bundle": str(install(folder, params["digest"], Path(params["from"])))}
            case "start":
                return start(folder, ServiceSpec.from_dict(params["asked"]))
            case "switch":
                return switch(folder, ServiceSpec.from_dict(params["asked"]))
            case "tidy":
                return {"removed": keep_only(folder, set(params["keep"]))}
            case "stop":
                stop(folder)
            case "remove":
                folder.remove()
            case _:
                raise WrongUsage(f"the target local has no action {action!r}", remedy=OTHER_VERSION)
        return {}

    def undo(self, action: str, params: Mapping[str, Any]) -> None:
        """Undo only what was created with these params: another deployment with the same name is left unchanged."""
        folder = _folder(params["name"])
        deployment = folder.read()
        match action:
            case "start" if deployment is None or deployment.spec == ServiceSpec.from_dict(params["asked"]):
                stop(folder)
                folder.clear()
            case "switch" if deployment is not None and deployment.spec == ServiceSpec.from_dict(params["asked"]):
                if params["before"] not in (None, params["asked"]):
                    switch(folder, ServiceSpec.from_dict(params["before"]))
            case "place":
                in_use = deployment.digests if deployment is not None else set()
                if params["digest"] not in in_use:
                    keep_only(folder, in_use)
                if deployment is None:
                    folder.clear()

    # --- existing deployments ----------------------------------------------------------------------------------------

    def status(self, receipt: Receipt) -> Status:
        """The state reported by the supervisor, checked by an HTTP request."""
        folder = _folder(receipt.name)
        deployment = folder.read()
        if deployment is None:
            return Status("gone", about=f"there is no deployment in {folder.path}")
        try:
            reported = status_of(folder)
        except SupervisorUnavailable as error:
            about = f"its supervisor is not running ({error}): {RESTART.replace('NAME', receipt.name)}"
            return Status("failing", deployment.url, about, {"folder": str(folder.path), "log": str(folder.log)})
        found = health(deployment.url, _token(deployment)) if reported["service_pid"] else Health()
        state, about = reported["state"], " | ".join(reported["problem"].splitlines())
        if state == "ready" and found.served is None:
            state, about = "failing", f"the service is running but not ready{found.reason}; see its log"
        details = {key: reported[key] for key in ("pid", "service_pid", "restarts", "uptime_s", "supervised_s")}
        return Status(state, deployment.url, about, {**details, "log": str(folder.log)}, *(found.served or ()))

    def traffic(self, receipt: Receipt) -> Traffic:
        """The figures in the service's metrics page, which start again with each version and each restart."""
        deployment = _existing(receipt.name)
        return traffic_of([metrics_page(deployment.url, authorization(deployment.spec.options["token_file"]))])

    def logs(self, receipt: Receipt, lines: int, follow: bool) -> Iterator[str]:
        """The log of the supervisor and of all versions of the service."""
        _existing(receipt.name)
        return log_lines(_folder(receipt.name).log, lines, follow)

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Response:
        """Raises NotDeployed, TargetUnavailable."""
        deployment = _existing(receipt.name)
        options = deployment.spec.options
        headers = {"Content-Type": content_type, **authorization(options["token_file"])}
        return invoke(deployment.url, headers, body, deadline_s=options["deadline_s"], name=receipt.name)

    def found(self) -> Sequence[Receipt]:
        """The receipts of all folders that contain a `deployment.json`."""
        folders = deployed_in(_root())
        return [_receipt(self.uri, each, deployment) for each in folders if (deployment := each.read()) is not None]


def _token(deployment: Deployment) -> Mapping[str, str]:
    """The header with a token for health checks, which succeed without one if its file cannot be read."""
    try:
        return authorization(deployment.spec.options["token_file"])
    except WrongUsage:
        return {}


def _existing(name: str) -> Deployment:
    deployment = _folder(name).read()
    if deployment is None:
        raise _not_deployed(name)
    return deployment


def _receipt(uri: str, folder: DeploymentFolder, deployment: Deployment) -> Receipt:
    """A receipt from the content of the folder."""
    spec, bundle = deployment.spec, folder.bundle(deployment.spec.model.key)
    manifest = bundle / MANIFEST
    source = load_manifest(manifest.read_bytes()).source.clean.uri if manifest.is_file() else spec.model.digest
    model = replace(spec.model, folder=bundle, source=source)
    written = datetime.fromtimestamp((folder.path / "deployment.json").stat().st_mtime, UTC)
    since = written.isoformat(timespec="seconds")
    return Receipt(uri, folder.name, model, spec.options, {"start": {"url": deployment.url}}, since, since)


def _root() -> Path:
    return data_home().absolute() / "local"


def _folder(name: str) -> DeploymentFolder:
    if not _NAME.fullmatch(name):
        raise WrongUsage(
            f"{name!r} is not a valid deployment name",
            remedy="use up to 63 letters, digits, dots, hyphens and underscores, starting with a letter or a digit",
        )
    return DeploymentFolder(_root() / name)


def _spec(model: ModelSpec, options: LocalOptions) -> ServiceSpec:
    return ServiceSpec(replace(model, folder=Path(), source=""), as_json(options))


def _require(name: str, deployment: Deployment | None, current: Receipt | None) -> None:
    if deployment is None and current is None:
        raise _not_deployed(name)


def _not_deployed(name: str) -> NotDeployed:
    return NotDeployed(f"there is no deployment named {name!r}", remedy="run `likewise list` to see all deployments")


def _install_step(folder: DeploymentFolder, model: ModelSpec) -> PlanStep:
    params = {"name": folder.name, "digest": model.key, "from": str(model.folder)}
    return PlanStep("place", "place", f"copies the bundle to {folder.path}", params)


def _start_step(name: str, spec: ServiceSpec, options: LocalOptions) -> PlanStep:
    address = f"{options.host}:{options.port}" if options.port else f"a free port of {options.host}"
    about = f"starts a supervisor and the service on {address}, and waits until it is ready"
    return PlanStep("start", "start", about, _params(name, spec))


def _switch_steps(name: str, spec: ServiceSpec, options: LocalOptions, deployment: Deployment | None) -> list[PlanStep]:
    before = None if deployment is None else deployment.spec
    if deployment is not None:
        _check_address(options, deployment)
    params = {**_params(name, spec), "before": None if before is None else before.as_dict()}
    former = None if deployment is None else deployment.before_of(spec)
    keep = sorted({spec.model.key, *([former] if former else [])})
    about = "starts the new version at the same address; when it is ready, the current version drains"
    return [
        PlanStep("switch", "switch", about, params),
        PlanStep("tidy", "tidy", "removes bundles older than the previous one", {"name": name, "keep": keep}),
    ]


def _params(name: str, spec: ServiceSpec) -> dict[str, Any]:
    return {"name": name, "asked": spec.as_dict(), "bundle": output_of("place", "bundle")}


def _check_address(options: LocalOptions, deployment: Deployment) -> None:
    if options.host != deployment.host or options.port not in (0, deployment.port):
        raise WrongUsage(
            f"the deployment listens on {deployment.host}:{deployment.port}, which an update cannot change",
            remedy="to use another address, delete the deployment and deploy it again",
        )
