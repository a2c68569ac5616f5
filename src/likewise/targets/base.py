"""The interface of a target: a backend to which bundles are deployed.

Every target implements `Target`: it checks, plans, and executes and undoes single steps.  A plan is data: `--plan`
prints exactly the steps that would be executed.  `likewise.targets.apply` executes it, independently of the target.
A target whose deployments serve requests also implements `Live`; the other protocols below are optional.  Callers test
for a protocol, never for a target's name.

Requirements that types cannot express, verified by `likewise.testing.targets.TargetSuite`:

- An update fails no request: each request during it is served by the previous or the new version.  If the new version
  does not become ready, the previous one keeps serving unchanged.
- `do` may be called again with the same params after a process that ran it was killed at any point, including in the
  middle; it inspects the current state and completes what is missing.
- `undo` removes only what was created with its own params, and restores the previous state.
- A failed or deleted deployment leaves nothing behind: no process, no file, nothing that incurs cost.
- If a model does not load, the engine's own error message reaches the user.
- Invalid options are rejected, with an error that names them, before anything is changed.

How to write one: architecture/targets.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from likewise.core.digests import sha256_json
from likewise.core.errors import DeployFailed, LikewiseError
from likewise.core.spec import ModelSpec

JsonValue = Any  # a value that JSON can represent: plans and receipts are stored as JSON
Outputs = Mapping[str, JsonValue]
Verb = Literal["create", "update", "delete"]
DeploymentState = Literal["ready", "starting", "restarting", "updating", "degraded", "failing", "gone"]
"""failing: not serving. restarting: its process has ended and is being started again. degraded: serving, with fewer
replicas than configured. gone: it no longer exists."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem reported by `check`. fatal: the deployment cannot work; otherwise it is only a warning.

    error: the class of the error for a fatal one.
    """

    cause: str
    remedy: str
    fatal: bool = True
    error: type[LikewiseError] = DeployFailed

    def __str__(self) -> str:
        return f"{self.cause}; {self.remedy}"


def unless_fatal(findings: Sequence[Finding]) -> Sequence[Finding]:
    """Return `findings`; raise the error of the first fatal one."""
    for finding in findings:
        if finding.fatal:
            raise finding.error(finding.cause, remedy=finding.remedy)
    return findings


@dataclass(frozen=True, slots=True)
class PlanStep:
    """A single step of a plan.

    id: unique within its plan. action: the target's name for it. about: a one-line description for people.
    params: may contain `output_of(step, key)` for values that an earlier step will return, such as an address.
    """

    id: str
    action: str
    about: str
    params: Mapping[str, JsonValue] = field(default_factory=dict)


FROM = "$from"  # the key of an `output_of` reference in JSON


def output_of(step: str, key: str) -> dict[str, JsonValue]:
    """A reference, for a step's params, to the output `key` of the earlier step `step`."""
    return {FROM: [step, key]}


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a deployment, update or deletion will do.

    target: its URI. model: the model that will be deployed, None for a deletion. options: all fields of the target's
    options dataclass, defaults included.
    """

    target: str
    name: str
    verb: Verb
    model: ModelSpec | None
    options: Mapping[str, JsonValue]
    steps: tuple[PlanStep, ...]

    @property
    def key(self) -> str:
        """The digest of the whole plan: equal plans have equal keys."""
        return sha256_json(self.as_dict())

    def as_dict(self) -> dict[str, JsonValue]:
        """The plan as JSON, as printed by `--plan --json`."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        model = None if self.model is None else self.model.as_dict()
        return {**fields, "model": model, "options": dict(self.options), "steps": [asdict(step) for step in self.steps]}

    @classmethod
    def from_dict(cls, document: Mapping[str, JsonValue]) -> Self:
        """The inverse of `as_dict`."""
        model = None if document["model"] is None else ModelSpec.from_dict(document["model"])
        steps = tuple(PlanStep(**step) for step in document["steps"])
        return cls(document["target"], document["name"], document["verb"], model, document["options"], steps)


SHOWN = {
    "url": "the URL of the deployment: either its base URL or that of `/invocations`",
    "log": "the location of its log, or the command that shows it",
    "costs": "what is billed for as long as it exists",
}
"""Step outputs that have the same meaning for every target and are shown to users; other keys are target-specific."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The record of a deployment as of the last executed plan.

    outputs: by step id, what the step returned: keys of SHOWN, and what the target itself needs (a process id, an ARN).
    previous: the model and options before that plan, for `update --to-previous`. created, updated: ISO 8601, UTC.
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
        """The receipt as JSON, for the store and for `--json`."""
        return {**{name: getattr(self, name) for name in self.__slots__}, "model": self.model.as_dict()}

    @classmethod
    def from_dict(cls, document: Mapping[str, JsonValue]) -> Self:
        """The inverse of `as_dict`."""
        return cls(**{**document, "model": ModelSpec.from_dict(document["model"])})

    def output(self, key: str) -> JsonValue:
        """The output `key` of the last step that returned it.  Raises KeyError."""
        for outputs in reversed(list(self.outputs.values())):
            if key in outputs:
                return outputs[key]
        raise KeyError(key)

    def shown(self) -> dict[str, JsonValue]:
        """The outputs listed in SHOWN, each from the last step that returned it."""
        return {key: value for outputs in self.outputs.values() for key, value in outputs.items() if key in SHOWN}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Figures about a deployment's inference requests and its processes; None is unknown.

    period: the time that the figures of requests cover, in words. errors: responses with a status of 500 or more,
    except 503; shed: with 503, because the service was overloaded or not ready; refused: with a status from 400 to 499.
    failed_rows: rows on which the model raised an exception. last_failure: why a row last failed, or a worker process
    ended, and when; without any value of the row. p50_ms, p99_ms: response times, of which half and 99 % are
    at most so long. memory_bytes: of all replicas together. replicas: those that serve.
    """

    period: str = ""
    requests: int | None = None
    errors: int | None = None
    shed: int | None = None
    refused: int | None = None
    failed_rows: int | None = None
    last_failure: str | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    memory_bytes: int | None = None
    replicas: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The current state of a deployment, as reported by its target.

    url: the address that it serves. about: a one-line description for people. details: target-specific facts.
    bundle, build: the model digest and the build digest of the bundle being served; engine: the label of the engine
    that computes its predictions; None if nothing is served, or if unknown. traffic: from `ReportsTraffic`.
    """

    state: DeploymentState
    url: str | None = None
    about: str = ""
    details: Mapping[str, JsonValue] = field(default_factory=dict)
    bundle: str | None = None
    build: str | None = None
    engine: str | None = None
    traffic: Traffic | None = None

    def as_dict(self) -> dict[str, JsonValue]:
        """The status as JSON; `bundle` is repeated in `details`, where earlier versions had it."""
        return {**asdict(self), "details": {**self.details, "bundle": self.bundle}}


@dataclass(frozen=True, slots=True)
class Response:
    """A deployment's HTTP response, of any status."""

    status: int
    content_type: str
    body: bytes


class Target(Protocol):
    """A backend to which bundles are deployed.  Its constructor connects to nothing; methods may be called from any
    process.

    Options: a frozen dataclass whose fields have `metadata["help"]`; values of `-C` are converted to the fields' types
    by `likewise.core.option_fields`.  uri: the canonical form of the URI.
    """

    Options: ClassVar[type[Any]]
    uri: str

    def check(self, model: ModelSpec, options: Any, current: Receipt | None = None) -> Sequence[Finding]:
        """Problems that would affect the deployment; changes nothing.

        current: the deployment to update, whose resources are not needed twice; None for a creation.
        """
        ...

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: Any, current: Receipt | None
    ) -> Sequence[PlanStep]:
        """The steps to execute; changes nothing.  current: the deployment to update or delete, None for a creation.

        Raises LikewiseError if the operation is not possible, AlreadyDeployed if the name is in use at the target.
        """
        ...

    def do(self, action: str, params: Mapping[str, JsonValue]) -> Outputs:
        """Execute one step; returns the outputs that later steps and the receipt need.

        Idempotent: a killed process may have executed the step fully or partly, so inspect first and complete only
        what is missing.  Raises LikewiseError, leaving nothing behind that `undo` does not remove.
        """
        ...

    def undo(self, action: str, params: Mapping[str, JsonValue]) -> None:
        """Undo a step that was started, no matter how far it got; does nothing if there is nothing to undo."""
        ...


@runtime_checkable
class Live(Protocol):
    """A target whose deployments serve requests."""

    def status(self, receipt: Receipt) -> Status:
        """The current state; `gone` if the backend has no such deployment."""
        ...

    def predict(self, receipt: Receipt, body: bytes, content_type: str) -> Response:
        """The response to `POST /invocations`.  Raises NotDeployed if nothing is serving."""
        ...

    def found(self) -> Sequence[Receipt]:
        """All existing deployments, including those of other users, from metadata that `do` stores at the backend."""
        ...


@runtime_checkable
class ReportsTraffic(Protocol):
    """A target that knows figures about the requests to its deployments."""

    def traffic(self, receipt: Receipt) -> Traffic:
        """The current figures.  Raises LikewiseError if they cannot be read."""
        ...


LOG_ENDS = "likewise: the deployment was deleted, so its log ends here"
"""The last line of a log that is followed until the deployment is deleted."""


@runtime_checkable
class Logs(Protocol):
    """A target that can read the logs of its deployments."""

    def logs(self, receipt: Receipt, lines: int, follow: bool) -> Iterator[str]:
        """The last `lines` lines, without line ends, the newest last; also of a deployment that does not serve.

        follow: then also new lines as they are written, including those of a version that replaces the current one,
        until the deployment is deleted, which the last line reports.  Raises NotDeployed, TargetUnavailable.
        """
        ...


@runtime_checkable
class PredictsAsync(Protocol):
    """A target that also accepts asynchronous requests, whose responses are delivered when they are complete."""

    def predict_later(self, receipt: Receipt, body: bytes, content_type: str, timeout_s: float) -> Response:
        """Queue the request and wait for its response.

        Raises DeadlineExceeded with the location where the response will appear, WrongUsage if the deployment is not
        asynchronous.
        """
        ...


BATCH = "likewise-batch"  # the default name of a job


@dataclass(frozen=True, slots=True)
class JobResult:
    """A finished job. status: as the backend reports it. output: location of the predictions. seconds: its run time."""

    id: str
    status: str
    output: str
    seconds: float


@runtime_checkable
class TransformJob(Protocol):
    """A target that runs a model over data stored at the backend, and leaves only the predictions behind."""

    def job_options(self) -> Sequence[tuple[str, str, str]]:
        """Name, default and help text of each option of `run`."""
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
        on_step: Callable[[PlanStep], None],
    ) -> JobResult:
        """Run the job, or resume it if the same call was interrupted; a completed one is returned unless `restart`.

        on_step: called before each step.  Raises WrongUsage, DeployFailed with the backend's reason, TargetUnavailable,
        Busy.
        """
        ...


@runtime_checkable
class WritesFile(Protocol):
    """A target whose native tools deploy from a file."""

    def written(self, name: str, model: ModelSpec, options: Any, bundle_at: str | None, image: str | None) -> str:
        """The file's text, generated offline. bundle_at: location to read the bundle from, None for its local folder.
        image: the container image of a manifest for Kubernetes, None for a file of the native tools.

        Raises WrongUsage for options that the file format cannot express.
        """
        ...


@runtime_checkable
class ReportsProgress(Protocol):
    """A target whose steps take minutes. progress: called with a line of text when the awaited state changes."""

    progress: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """The environment of a rehearsal: a local replacement of the backend, such as an emulator.

    uri: the target's URI there. options: option values that replace the real ones. url: endpoint URL for the backend's
    native tools. environment: variables that point those tools there. cautions: how it differs from the real backend.
    """

    uri: str
    options: Mapping[str, str]
    url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()


@runtime_checkable
class Rehearses(Protocol):
    """A target whose plans can first be executed on this machine, where they cost nothing."""

    def stage(self) -> AbstractContextManager[Stage]:
        """The rehearsal environment, removed at the end of `with`.  Raises TargetUnavailable, MissingExtra."""
        ...
