"""The contract of a target: a place where bundles are deployed.

Every target implements `Target`: it checks, it plans, and it does and undoes single steps.  A plan is data: what a dry
run prints is what is executed.  `likewise.targets.apply` carries it out step by step, and knows nothing of any target.
One whose deployments answer requests implements `Live` too; the other protocols below are optional, and callers ask for
the protocol, never for a target by name.

What the protocols cannot say in types, and `likewise.testing.targets.TargetSuite` proves:

- An update fails no request: whoever asks during it gets the answer of the version before or of the new one.  A new
  version that does not become ready leaves the one before as it was.
- `do` may be called again with the same params after a process that did the same was killed at any moment, also in the
  middle of it; it finds what is there and does what is missing.
- `undo` removes what its own params have made, and nothing else: what stood there before stands there again.
- A deployment that failed, and one that was deleted, leave nothing: no process, no file, nothing that costs.
- The engine's own message reaches the user where a model does not load.
- Options are refused by name before anything is changed.

How to write one: architecture/targets.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from likewise.core.digests import sha256_json
from likewise.core.errors import DeployFailed
from likewise.core.renamed import renamed
from likewise.core.spec import ModelSpec

_OLD_NAMES = {"Job": "TransformJob", "Json": "JsonValue", "State": "DeploymentState", "Step": "PlanStep"}
__getattr__ = renamed(__name__, _OLD_NAMES)

JsonValue = Any  # what JSON can say: a plan and a receipt are stored as such
Outputs = Mapping[str, JsonValue]
Verb = Literal["create", "update", "delete"]
DeploymentState = Literal["ready", "starting", "updating", "degraded", "failing", "gone"]
"""degraded: it answers, with fewer replicas than were asked for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What `check` saw. fatal: the deployment cannot work so; else it can, and the reader should know."""

    cause: str
    remedy: str
    fatal: bool = True


def unless_fatal(findings: Sequence[Finding]) -> Sequence[Finding]:
    """The same; DeployFailed with the first that is fatal."""
    for finding in findings:
        if finding.fatal:
            raise DeployFailed(finding.cause, remedy=finding.remedy)
    return findings


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One thing that a target does.

    id: unique in its plan. action: what the target calls it. about: the same for people, in a line. params: may hold
    `output_of(step, key)` in the place of what an earlier step gives, as no address is known before.
    """

    id: str
    action: str
    about: str
    params: Mapping[str, JsonValue] = field(default_factory=dict)


FROM = "$from"


def output_of(step: str, key: str) -> dict[str, JsonValue]:
    """In a step's params: the value `key` of what the step `step` gave."""
    return {FROM: [step, key]}


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a deployment, an update or a deletion does, before any of it is done.

    target: its URI. model: what is deployed afterwards, None for a deletion. options: as the target's own dataclass
    has them, those that were not asked for included.
    """

    target: str
    name: str
    verb: Verb
    model: ModelSpec | None
    options: Mapping[str, JsonValue]
    steps: tuple[PlanStep, ...]

    @property
    def key(self) -> str:
        """The digest of all of it: two equal plans are one."""
        return sha256_json(self.as_dict())

    def as_dict(self) -> dict[str, JsonValue]:
        """As `--plan --json` prints it."""
        said = {name: getattr(self, name) for name in self.__slots__}
        model = None if self.model is None else self.model.as_dict()
        return {**said, "model": model, "options": dict(self.options), "steps": [asdict(step) for step in self.steps]}

    @classmethod
    def from_dict(cls, said: Mapping[str, JsonValue]) -> Self:
        """What `as_dict` gave."""
        model = None if said["model"] is None else ModelSpec.from_dict(said["model"])
        steps = tuple(PlanStep(**step) for step in said["steps"])
        return cls(said["target"], said["name"], said["verb"], model, said["options"], steps)


SHOWN = {
    "url": "where the deployment answers: `/invocations` is below it, or is it",
    "log": "where its log is, or the command that shows it",
    "costs": "what is paid for as long as it stands",
}
"""Outputs of steps that every target names alike, and that people are shown; every other key is the target's own."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What stands where, as of the last plan that was carried out.

    outputs: by step, what it gave: keys of SHOWN, and what the target itself needs (a process, an ARN). previous: the
    model and the options before that plan, for `update --to-previous`. created, updated: ISO 8601, UTC.
    """

    target: str
    name: str
    model: ModelSpec
    options: Mapping[str, JsonValue]
    outputs: Mapping[str, Outputs]
    created: str
    updated: str
    previous: Mapping[str, JsonValue] | None = None

    def as_dict(self) -> dict[str, JsonValue]:
        """For the store and for `--json`."""
        return {**{name: getattr(self, name) for name in self.__slots__}, "model": self.model.as_dict()}

    @classmethod
    def from_dict(cls, said: Mapping[str, JsonValue]) -> Self:
        """What `as_dict` gave."""
        return cls(**{**said, "model": ModelSpec.from_dict(said["model"])})

    def output(self, key: str) -> JsonValue:
        """The value `key` of the last step that gave one; KeyError."""
        for given in reversed(list(self.outputs.values())):
            if key in given:
                return given[key]
        raise KeyError(key)

    def shown(self) -> dict[str, JsonValue]:
        """The outputs that SHOWN names, each of the last step that gave it."""
        return {key: value for given in self.outputs.values() for key, value in given.items() if key in SHOWN}


@dataclass(frozen=True, slots=True)
class Status:
    """How a deployment is now, as its target reports it.

    url: where it answers. about: a line for people. details: what else the target knows. bundle: the digest of the
    bundle that answers there, None where nothing does, or where the target cannot know.
    """

    state: DeploymentState
    url: str | None = None
    about: str = ""
    details: Mapping[str, JsonValue] = field(default_factory=dict)
    bundle: str | None = None

    def as_dict(self) -> dict[str, JsonValue]:
        """For `--json`; the bundle is in the details too, where readers of earlier versions look for it."""
        return {**asdict(self), "details": {**self.details, "bundle": self.bundle}}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a deployment said to a request, whatever its status."""

    status: int
    content_type: str
    body: bytes


class Target(Protocol):
    """A place where bundles are deployed. Opening one reaches nothing yet; every method may be called from any process.

    Options: a frozen dataclass whose fields have `metadata["help"]`; values of `-C` are coerced to the fields' types
    by `likewise.core.option_fields`.  uri: as the user may write it again.
    """

    Options: ClassVar[type[Any]]
    uri: str

    def check(self, model: ModelSpec, options: Any) -> Sequence[Finding]:
        """What stands in the way, looked at without changing anything."""
        ...

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: Any, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """The steps, without doing any of them; current: what is to be updated or deleted, None for a creation.

        Raises LikewiseError where the verb cannot be done so, AlreadyDeployed where the place holds another one.
        """
        ...

    def do(self, action: str, params: Mapping[str, JsonValue]) -> Outputs:
        """Do one step, and give what later steps and the receipt need.

        Done before, wholly or in part, by a process that was killed: it looks first, and does only what is missing.
        Raises LikewiseError, having left nothing behind that `undo` does not remove.
        """
        ...

    def undo(self, action: str, params: Mapping[str, JsonValue]) -> None:
        """Take back a step that was begun, wherever it was stopped; nothing where there is nothing to take back."""
        ...


@runtime_checkable
class Live(Protocol):
    """A target whose deployments answer requests."""

    def status(self, receipt: Receipt) -> Status:
        """How it is now; `gone` where the place knows nothing of it."""
        ...

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Answer:
        """Its answer to `POST /invocations`; NotDeployed where nothing answers."""
        ...

    def found(self) -> Sequence[Receipt]:
        """What stands there as the place itself tells, whoever deployed it: written down there by `do`."""
        ...


@runtime_checkable
class AnswersLater(Protocol):
    """A target that also takes requests whose answers come when they are done."""

    def predict_later(self, receipt: Receipt, body: bytes, content_type: str, timeout_s: float) -> Answer:
        """The answer, waited for; DeadlineExceeded says where it will lie, WrongUsage where it is none for that."""
        ...


BATCH = "likewise-batch"  # what a job is called that nobody has named


@dataclass(frozen=True, slots=True)
class Done:
    """A job that was run. status: the place's word. output: where its answers lie. seconds: for which it ran."""

    id: str
    status: str
    output: str
    seconds: float


@runtime_checkable
class TransformJob(Protocol):
    """A target that runs a model over data that lies there, and leaves nothing behind but the answers."""

    def job_options(self) -> Sequence[tuple[str, str, str]]:
        """Name, default and help of each option of `run`."""
        ...

    def run(
        self,
        model: ModelSpec,
        source: str,
        output: str,
        options: Mapping[str, object],
        *,
        name: str,
        restart: bool,
        tell: Callable[[PlanStep], None],
    ) -> Done:
        """Run it, or go on with what the same call had begun; one that is done is told of, unless it is to `restart`.

        Raises WrongUsage, DeployFailed with the place's reason, TargetUnavailable, Busy.
        """
        ...


@runtime_checkable
class Written(Protocol):
    """A target whose own tools deploy from a file."""

    def written(self, name: str, model: ModelSpec, options: Any, bundle_at: str | None) -> str:
        """The file's text, with no need to reach the place. bundle_at: where the bundle is read; None: where it lies.

        Raises WrongUsage for options that such a file cannot say.
        """
        ...


@runtime_checkable
class Waits(Protocol):
    """A target whose steps wait for minutes. progress: gets a line whenever what is waited for has changed."""

    progress: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a rehearsal takes place. uri: the target's, there. options: what must be said there in place of the real.

    url: what the place's own tools may be pointed at. environment: variables that point them there. cautions: what is
    not as it will be.
    """

    uri: str
    options: Mapping[str, str]
    url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()


@runtime_checkable
class Rehearses(Protocol):
    """A target whose plans can be carried out on this machine before they cost anything."""

    def stage(self) -> AbstractContextManager[Stage]:
        """Until the end of `with`; nothing is left then.  Raises TargetUnavailable, MissingExtra."""
        ...
