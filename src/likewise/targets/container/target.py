"""The target `container`: a door that keeps the port, and a version behind it, at Docker or Podman of this machine."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from likewise.bundles.open import is_bundle, open_bundle
from likewise.core.digests import sha256_json
from likewise.core.errors import NotDeployed, WrongUsage
from likewise.core.option_fields import as_json
from likewise.core.spec import ModelSpec
from likewise.receipts import data_home
from likewise.targets.base import Answer, Finding, JsonValue, Outputs, PlanStep, Receipt, Status, Verb, output_of
from likewise.targets.container import inspection
from likewise.targets.container.actions import ACTIONS, Action
from likewise.targets.container.container_options import ContainerTargetOptions, check_options
from likewise.targets.container.inspection import Standing
from likewise.targets.container.program import Program
from likewise.targets.container.status import receipt_of, status_of
from likewise.targets.http_client import invoke
from likewise.targets.trust import needs_trust

URIS = {f"container{form}": None for form in ("", ":", "://")} | {
    f"container{form}{program}": program for form in (":/", "://") for program in ("docker", "podman")
}
DEADLINE_S = 55.0  # the container's own, where nobody has set another
_OF_DOOR = ("host", "port", "network", "user")  # what an update cannot change


class ContainerTarget:
    """Deployments are what carries our labels at the engine: there is no state beside it."""

    Options: ClassVar[type[ContainerTargetOptions]] = ContainerTargetOptions

    def __init__(self, uri: str) -> None:
        if uri not in URIS:
            known = "container, container:/docker, container:/podman"
            raise WrongUsage(f"the target container has no such address: {uri!r}", remedy=f"one of: {known}")
        self._named = URIS[uri]
        self.uri = f"container:/{self._named}" if self._named else "container"

    @cached_property
    def program(self) -> Program:
        """The engine's command; TargetUnavailable where none answers."""
        return Program.find(self._named)

    # --- plans -------------------------------------------------------------------------------------------------------

    def check(self, model: ModelSpec, options: ContainerTargetOptions) -> Sequence[Finding]:
        """Options, trust, the bundle byte for byte, and whether an engine answers.

        Raises WrongUsage, TargetUnavailable, and what `open_bundle` raises.
        """
        check_options(options)
        if needs_trust(model):
            return [Finding("the model runs its own Python code, which nobody has allowed", "add --trust")]
        if is_bundle(model.folder):
            open_bundle(model.folder)
        self.program.platform()
        return []

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: ContainerTargetOptions, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """Raises WrongUsage, NotDeployed, TargetUnavailable."""
        inspection.check_name(name)
        standing = inspection.standing(self.program, name)
        if verb != "create" and current is None and not (standing.versions or standing.door):
            raise NotDeployed(f"nothing is deployed as {name!r}", remedy="likewise list shows what is")
        if model is None:
            return _deleting(name, options)
        if verb == "update":
            _same_door(options, standing)
        return _serving(verb, name, model, options, standing)

    def do(self, action: str, params: Mapping[str, JsonValue]) -> Outputs:
        """Do one step; see `actions`."""
        done, _ = _action(action)
        with _one_at_a_time(self.program, params["name"]) as program:
            return done(program, params)

    def undo(self, action: str, params: Mapping[str, JsonValue]) -> None:
        """Take back what this very step has made; what was there before it stays."""
        _, undone = _action(action)
        with _one_at_a_time(self.program, params["name"]) as program:
            undone(program, params)

    # --- what stands -------------------------------------------------------------------------------------------------

    def status(self, receipt: Receipt) -> Status:
        """As the engine says, and as HTTP answers; TargetUnavailable."""
        return status_of(self.program, inspection.standing(self.program, receipt.name))

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Answer:
        """Raises NotDeployed, TargetUnavailable."""
        standing = inspection.standing(self.program, receipt.name)
        if standing.door is None:
            raise NotDeployed(f"nothing is deployed as {receipt.name!r}", remedy="likewise list shows what is")
        env = {} if standing.current is None else standing.current.options["env"]
        deadline_s = float(env.get("LIKEWISE_DEADLINE_S") or DEADLINE_S)
        return invoke(standing.door.labels[inspection.URL], {"Content-Type": content_type}, body, deadline_s=deadline_s)

    def found(self) -> Sequence[Receipt]:
        """Of every deployment whose containers stand there."""
        there = inspection.all_standing(self.program)
        made = [receipt_of(self.uri, name, standing) for name, standing in there.items()]
        return [receipt for receipt in made if receipt is not None]


@contextmanager
def _one_at_a_time(program: Program, name: str) -> Iterator[Program]:
    """The lock is held by the engine's commands too: what a killed process has begun has ended when it is free."""
    folder = data_home() / "container"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield program.locked(lock.fileno())


def _action(action: str) -> Action:
    if action not in ACTIONS:
        raise WrongUsage(f"the target container has no action {action!r}", remedy="plan it anew")
    return ACTIONS[action]


def _serving(
    verb: Verb, name: str, model: ModelSpec, options: ContainerTargetOptions, standing: Standing
) -> Sequence[PlanStep]:
    said = _at_home_anywhere(as_json(options))
    claim = sha256_json([{**model.as_dict(), "folder": ""}, said])
    common = {"verb": verb, "name": name, "claim": claim, "options": said, "model": model.as_dict()}
    with_image = {**common, "image": output_of("image", "image")}
    serving = {**with_image, "url": output_of("door", "url"), "stood": list(standing.running)}
    where = f"{options.host}:{options.port}" if options.port else f"a free port of {options.host}"
    about = f"takes the image {options.image}" if options.image else "builds the image, and loads it"
    steps = [
        PlanStep("image", "image", about, common),
        PlanStep("door", "door", f"keeps {where} for all versions", with_image),
        PlanStep("start", "start", "starts the container and waits until it is ready", serving),
    ]
    if verb == "create":
        return steps
    after = {**common, "url": output_of("door", "url"), "container": output_of("start", "container")}
    retiring = {**after, "stood": serving["stood"]}
    return [
        *steps,
        PlanStep("retire", "retire", "the version before answers who is connected, and ends", retiring),
        PlanStep("tidy", "tidy", "removes versions older than the one before", after),
    ]


def _at_home_anywhere(said: dict[str, Any]) -> dict[str, Any]:
    """The same with absolute paths: a plan that was cut off may be gone on with from another folder."""
    paths = {key: said[key] for key in ("base", "wheels", "lock") if said[key] and Path(said[key]).exists()}
    return {**said, **{key: str(Path(path).absolute()) for key, path in paths.items()}}


def _deleting(name: str, options: ContainerTargetOptions) -> Sequence[PlanStep]:
    params = {"name": name, "options": as_json(options)}
    return [
        PlanStep("stop", "stop", "answers what is in flight, and ends", params),
        PlanStep("remove", "remove", "removes containers and volume, and the images built for them", params),
    ]


def _same_door(options: ContainerTargetOptions, standing: Standing) -> None:
    if standing.door is None:
        return
    held = standing.door.options
    for key in _OF_DOOR:
        wanted = getattr(options, key)
        url = standing.door.labels[inspection.URL]
        if wanted != held[key] and not (key == "port" and url.endswith(f":{wanted}")):
            raise WrongUsage(
                f"the deployment has {key}={held[key]} at {url}, which an update keeps",
                remedy="delete it and deploy it again, where that must be another",
            )
