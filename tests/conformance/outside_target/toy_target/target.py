"""The target `toy`: checks, plans and steps, and requests to its deployments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from likewise.core.errors import AlreadyDeployed, NotDeployed, WrongUsage
from likewise.core.option_fields import as_json
from likewise.core.spec import ModelSpec
from likewise.server import ServerOptions
from likewise.targets.base import Finding, Outputs, PlanStep, Receipt, Response, Status, Verb
from likewise.targets.http_client import health, invoke
from toy_target.deployment import Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyOptions(ServerOptions):
    """The options of Likewise's server, with other defaults."""

    port: int = field(default=0, metadata={"help": "Port to listen on; 0 chooses a free port, which updates keep."})
    access_log: bool = field(default=False, metadata={"help": "Write one JSON line per request to the log."})


class ToyTarget:
    """The current user's deployments on this machine."""

    Options: ClassVar[type[ToyOptions]] = ToyOptions

    def __init__(self, uri: str) -> None:
        if uri != "toy":
            raise WrongUsage(f"the target toy does not accept the address {uri!r}", remedy="use --to toy")
        self.uri = uri

    def check(self, model: ModelSpec, options: ToyOptions, current: Receipt | None = None) -> Sequence[Finding]:
        """There is nothing to check: Likewise has verified the bundle and that its code may run."""
        return []

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: ToyOptions, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """For an update, the new version takes over the port before the previous one is stopped."""
        before = Deployment(name).version()
        if verb == "create" and before is not None:
            raise AlreadyDeployed(f"{name!r} is deployed here", remedy=f"likewise update {name} MODEL")
        if verb != "create" and before is None and current is None:
            raise NotDeployed(f"there is no deployment named {name!r}", remedy="run `likewise list` to see all")
        if model is None:
            return [PlanStep("remove", "remove", "stops its process and removes its folder", {"name": name})]
        params = {"name": name, "spec": {"model": model.as_dict(), "options": as_json(options)}, "before": before}
        serve = PlanStep("serve", "serve", "starts a process and waits until it is ready", params)
        retire = PlanStep("retire", "retire", "stops the process of the previous version", params)
        return [serve] if before is None else [serve, retire]

    def do(self, action: str, params: Mapping[str, Any]) -> Outputs:
        """Execute one step; see `Deployment`."""
        deployment = Deployment(params["name"])
        match action:
            case "serve":
                return deployment.serve(params["spec"], params["before"])
            case "retire":
                deployment.retire(params["before"])
            case "remove":
                deployment.remove()
        return {}

    def undo(self, action: str, params: Mapping[str, Any]) -> None:
        """Restore the previous version, or remove everything if there was none; a deletion is never undone."""
        if action == "serve":
            Deployment(params["name"]).undo(params["spec"], params["before"])

    def status(self, receipt: Receipt) -> Status:
        """The status according to an HTTP request."""
        version = Deployment(receipt.name).version()
        if version is None:
            return Status("gone", about="the deployment does not exist")
        found = health(version["url"])
        state = "ready" if found.served else "failing"
        return Status(state, version["url"], found.message, **(found.served._asdict() if found.served else {}))

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Response:
        """Raises NotDeployed, TargetUnavailable."""
        version = Deployment(receipt.name).version()
        if version is None:
            raise NotDeployed(f"there is no deployment named {receipt.name!r}", remedy="run `likewise list` to see all")
        deadline_s = version["spec"]["options"]["deadline_s"]
        return invoke(version["url"], {"Content-Type": content_type}, body, deadline_s=deadline_s)

    def found(self) -> Sequence[Receipt]:
        """The receipts of all folders with a version."""
        return [self._receipt(name, version) for name, version in Deployment.all()]

    def _receipt(self, name: str, version: Mapping[str, Any]) -> Receipt:
        model, options = ModelSpec.from_dict(version["spec"]["model"]), version["spec"]["options"]
        outputs = {"serve": {"url": version["url"]}}
        return Receipt(self.uri, name, model, options, outputs, version["since"], version["since"])
