"""The target `local`: a background service of this user's on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from likewise.targets.base import Answer, Finding, Outputs, PlanStep, Receipt, Status, Verb, output_of
from likewise.targets.http_client import invoke, served_digest
from likewise.targets.local.control import Gone
from likewise.targets.local.deployment_folder import Deployment, Home, ServiceSpec
from likewise.targets.local.installation import keep_only, place
from likewise.targets.local.launch import start, status_of, stop, switch
from likewise.targets.local.local_options import LocalOptions
from likewise.targets.trust import needs_trust

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MEND = "likewise update NAME starts it again with its last model and options"


class LocalTarget:
    """Each deployment is a folder, a supervisor process and the service that it keeps up."""

    Options: ClassVar[type[LocalOptions]] = LocalOptions

    def __init__(self, uri: str) -> None:
        if uri not in ("local", "local:", "local://"):
            raise WrongUsage(f"the target local has no such address: {uri!r}", remedy="--to local")
        self.uri = "local"

    # --- plans -------------------------------------------------------------------------------------------------------

    def check(self, model: ModelSpec, options: LocalOptions) -> Sequence[Finding]:
        """Trust and tokens, before anything is copied."""
        found = []
        if needs_trust(model):
            found.append(Finding("the model runs its own Python code, which nobody has allowed", "add --trust"))
        if options.token_file is not None:
            try:
                Tokens(options.token_file)
            except WrongUsage as error:
                found.append(Finding(error.cause, error.remedy))
        return found

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: LocalOptions, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """Raises WrongUsage, AlreadyDeployed, NotDeployed."""
        home = _home(name)
        deployment = home.read()
        if verb == "delete":
            _require(name, deployment, current)
            about = "answers what is in flight, and ends the service and its supervisor"
            return [
                PlanStep("stop", "stop", about, {"name": name}),
                PlanStep("remove", "remove", f"removes {home.folder}", {"name": name}),
            ]
        assert model is not None  # noqa: S101  only a deletion has none
        asked = _asked(model, options)
        if verb == "create":
            if current is not None:
                raise AlreadyDeployed(f"{name!r} is deployed here already", remedy=f"likewise update {name} MODEL")
            return [_placing(home, model), _starting(name, asked, options)]
        _require(name, deployment, current)
        return [_placing(home, model), *_switching(name, asked, options, deployment)]

    def do(self, action: str, params: Mapping[str, Any]) -> Outputs:
        """See the modules `place` and `launch` for what the steps raise."""
        home = _home(params["name"])
        match action:
            case "place":
                return {"bundle": str(place(home, params["digest"], Path(params["from"])))}
            case "start":
                return start(home, ServiceSpec.from_dict(params["asked"]))
            case "switch":
                return switch(home, ServiceSpec.from_dict(params["asked"]))
            case "tidy":
                return {"removed": keep_only(home, set(params["keep"]))}
            case "stop":
                stop(home)
            case "remove":
                home.remove()
            case _:
                raise WrongUsage(f"the target local has no action {action!r}", remedy="plan it anew")
        return {}

    def undo(self, action: str, params: Mapping[str, Any]) -> None:
        """Only what these very params have made: another deployment of the name is left alone."""
        home = _home(params["name"])
        deployment = home.read()
        match action:
            case "start" if deployment is None or deployment.asked == ServiceSpec.from_dict(params["asked"]):
                stop(home)
                home.clear()
            case "switch" if deployment is not None and deployment.asked == ServiceSpec.from_dict(params["asked"]):
                if params["before"] is not None:
                    switch(home, ServiceSpec.from_dict(params["before"]))
            case "place":
                held = deployment.digests if deployment is not None else set()
                if params["digest"] not in held:
                    keep_only(home, held)
                home.drop_if_empty()

    # --- what stands -------------------------------------------------------------------------------------------------

    def status(self, receipt: Receipt) -> Status:
        """As the supervisor says, and as HTTP answers."""
        home = _home(receipt.name)
        deployment = home.read()
        if deployment is None:
            return Status("gone", about=f"there is nothing in {home.folder}")
        try:
            said = status_of(home)
        except Gone as error:
            about = f"its supervisor is gone ({error}): {MEND.replace('NAME', receipt.name)}"
            return Status("failing", deployment.url, about, {"folder": str(home.folder), "log": str(home.log)})
        digest = served_digest(deployment.url, "/ping") if said["service_pid"] else None
        state, about = said["state"], " | ".join(said["problem"].splitlines())
        if state == "ready" and digest is None:
            state, about = "failing", "the service is there and does not answer"
        details = {key: said[key] for key in ("pid", "service_pid", "restarts", "uptime_s", "supervised_s")}
        return Status(state, deployment.url, about, {**details, "log": str(home.log)}, digest)

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Answer:
        """Raises NotDeployed, TargetUnavailable."""
        deployment = _home(receipt.name).read()
        if deployment is None:
            raise NotDeployed(f"nothing is deployed as {receipt.name!r}", remedy="likewise list shows what is")
        options = deployment.asked.options
        headers = {"Content-Type": content_type, **authorization(options["token_file"])}
        return invoke(deployment.url, headers, body, deadline_s=options["deadline_s"])

    def found(self) -> Sequence[Receipt]:
        """Of every folder with a deployment's file."""
        homes = [Home(path.parent) for path in sorted(_root().glob("*/deployment.json"))]
        return [_receipt(self.uri, home, deployment) for home in homes if (deployment := home.read()) is not None]


def _receipt(uri: str, home: Home, deployment: Deployment) -> Receipt:
    """As far as the folder tells."""
    asked, folder = deployment.asked, home.bundle(deployment.asked.model.digest)
    manifest = folder / MANIFEST
    source = load_manifest(manifest.read_bytes()).source.uri if manifest.is_file() else asked.model.digest
    model = replace(asked.model, folder=folder, source=source)
    written = datetime.fromtimestamp((home.folder / "deployment.json").stat().st_mtime, UTC)
    since = written.isoformat(timespec="seconds")
    return Receipt(uri, home.folder.name, model, asked.options, {"start": {"url": deployment.url}}, since, since)


def _root() -> Path:
    return data_home().absolute() / "local"


def _home(name: str) -> Home:
    if not _NAME.fullmatch(name):
        raise WrongUsage(
            f"{name!r} cannot be a deployment's name",
            remedy="take up to 63 letters, digits, dots, hyphens and underscores; a letter or a digit first",
        )
    return Home(_root() / name)


def _asked(model: ModelSpec, options: LocalOptions) -> ServiceSpec:
    said = as_json(options)
    if options.token_file is not None:
        said["token_file"] = str(options.token_file.absolute())
    return ServiceSpec(ModelSpec.from_dict(model.portable()), said)


def _require(name: str, deployment: Deployment | None, current: Receipt | None) -> None:
    if deployment is None and current is None:
        raise NotDeployed(f"nothing is deployed as {name!r}", remedy="likewise list shows what is")


def _placing(home: Home, model: ModelSpec) -> PlanStep:
    params = {"name": home.folder.name, "digest": model.digest, "from": str(model.folder)}
    return PlanStep("place", "place", f"puts the bundle into {home.folder}", params)


def _starting(name: str, asked: ServiceSpec, options: LocalOptions) -> PlanStep:
    where = f"{options.host}:{options.port}" if options.port else f"a free port of {options.host}"
    about = f"starts a supervisor and the service on {where}, and waits until it is ready"
    return PlanStep("start", "start", about, _serving(name, asked))


def _switching(name: str, asked: ServiceSpec, options: LocalOptions, deployment: Deployment | None) -> list[PlanStep]:
    before = None if deployment is None else deployment.asked
    if deployment is not None:
        _same_address(options, deployment)
    params = {**_serving(name, asked), "before": None if before is None else before.as_dict()}
    keep = sorted({asked.model.digest, *([before.model.digest] if before else [])})
    about = "starts it beside the one that answers, on the same address; that one drains when it is ready"
    return [
        PlanStep("switch", "switch", about, params),
        PlanStep("tidy", "tidy", "removes bundles older than the one before", {"name": name, "keep": keep}),
    ]


def _serving(name: str, asked: ServiceSpec) -> dict[str, Any]:
    return {"name": name, "asked": asked.as_dict(), "bundle": output_of("place", "bundle")}


def _same_address(options: LocalOptions, deployment: Deployment) -> None:
    if options.host != deployment.host or options.port not in (0, deployment.port):
        raise WrongUsage(
            f"the deployment listens on {deployment.host}:{deployment.port}, which an update keeps",
            remedy="delete it and deploy it again, where it must listen elsewhere",
        )
