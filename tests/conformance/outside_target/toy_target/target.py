"""The target `toy`: what it checks and plans, and how its deployments answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from likewise.bundles.open import open_bundle
from likewise.core.errors import AlreadyDeployed, NotDeployed, WrongUsage
from likewise.core.option_fields import as_json
from likewise.core.spec import ModelSpec
from likewise.server import ServerOptions
from likewise.targets.base import Answer, Finding, Outputs, PlanStep, Receipt, Status, Verb
from likewise.targets.http_client import invoke, served_digest
from likewise.targets.trust import needs_trust
from toy_target.deployment import Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyOptions(ServerOptions):
    """What the server takes."""

    port: int = field(default=0, metadata={"help": "Port to listen on; 0 finds a free one and keeps it."})
    access_log: bool = field(default=False, metadata={"help": "One JSON line a request in the log."})


class ToyTarget:
    """Deployments on this machine, whoever of this user has made them."""

    Options: ClassVar[type[ToyOptions]] = ToyOptions

    def __init__(self, uri: str) -> None:
        if uri != "toy":
            raise WrongUsage(f"the target toy has no address {uri!r}", remedy="--to toy")
        self.uri = uri

    def check(self, model: ModelSpec, options: ToyOptions) -> Sequence[Finding]:
        """Trust, and the bundle byte for byte; raises what `open_bundle` does."""
        if needs_trust(model):
            return [Finding("the model runs its own Python code, which nobody has allowed", "add --trust")]
        open_bundle(model.folder)
        return []

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: ToyOptions, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """A new version takes over the port, and only then the one before ends."""
        before = Deployment(name).version()
        if verb == "create" and before is not None:
            raise AlreadyDeployed(f"{name!r} is deployed here", remedy=f"likewise update {name} MODEL")
        if verb != "create" and before is None and current is None:
            raise NotDeployed(f"nothing is deployed as {name!r}", remedy="likewise list shows what is")
        if model is None:
            return [PlanStep("remove", "remove", "ends its process and removes its folder", {"name": name})]
        params = {"name": name, "wanted": {"model": model.as_dict(), "options": as_json(options)}, "before": before}
        serve = PlanStep("serve", "serve", "starts a process and waits until it is ready", params)
        retire = PlanStep("retire", "retire", "ends the process of the version before", params)
        return [serve] if before is None else [serve, retire]

    def do(self, action: str, params: Mapping[str, Any]) -> Outputs:
        """Do one step; see `Deployment`."""
        deployment = Deployment(params["name"])
        match action:
            case "serve":
                return deployment.serve(params["wanted"], params["before"])
            case "retire":
                deployment.retire(params["before"])
            case "remove":
                deployment.remove()
        return {}

    def undo(self, action: str, params: Mapping[str, Any]) -> None:
        """The version before answers again, or nothing is left; a deletion is never undone."""
        if action == "serve":
            Deployment(params["name"]).undo(params["wanted"], params["before"])

    def status(self, receipt: Receipt) -> Status:
        """As HTTP answers."""
        version = Deployment(receipt.name).version()
        if version is None:
            return Status("gone", about="there is no such deployment")
        digest = served_digest(version["url"], "/ready")
        return Status("ready" if digest else "failing", version["url"], bundle=digest)

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Answer:
        """Raises NotDeployed, TargetUnavailable."""
        version = Deployment(receipt.name).version()
        if version is None:
            raise NotDeployed(f"nothing is deployed as {receipt.name!r}", remedy="likewise list shows what is")
        deadline_s = version["wanted"]["options"]["deadline_s"]
        return invoke(version["url"], {"Content-Type": content_type}, body, deadline_s=deadline_s)

    def found(self) -> Sequence[Receipt]:
        """Of every folder that holds a version."""
        return [self._receipt(name, version) for name, version in Deployment.all()]

    def _receipt(self, name: str, version: Mapping[str, Any]) -> Receipt:
        model = ModelSpec.from_dict(version["wanted"]["model"])
        outputs = {"serve": {"url": version["url"]}}
        return Receipt(self.uri, name, model, version["wanted"]["options"], outputs, version["since"], version["since"])
