"""Deployments on all targets: deploy, update, query and delete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from likewise.api import Bundle, bundle_of
from likewise.core.errors import Interrupted, LikewiseError, WrongUsage
from likewise.core.scratch import scratch_folder
from likewise.core.spec import ModelSpec
from likewise.receipts import Receipts
from likewise.targets import lookup
from likewise.targets.apply import OnStep, apply, roll_back
from likewise.targets.base import (
    BATCH,
    JobResult,
    Live,
    Logs,
    PredictsAsync,
    Receipt,
    Rehearses,
    ReportsProgress,
    ReportsTraffic,
    Response,
    Stage,
    Status,
    TransformJob,
)
from likewise.targets.history import Revision, history_of
from likewise.targets.listing import Listed, to_finish, with_states
from likewise.targets.planning import Planned, check, check_model, plan
from likewise.targets.registry import open_target

JSON = "application/json"


def deploy(
    model: str | Path | Bundle,
    to: str,
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
    report: Callable[[str], None] | None = None,
) -> Receipt:
    """Deploy `model` to the target `to` under `name`.  Resumes if interrupted; rolls back on failure.

    options: the target's options, as values or strings.  report: called with progress messages.  Raises
    AlreadyDeployed, DeployFailed, TargetUnavailable, Busy, WrongUsage, and what `find` raises.
    """
    check("create", name, to, options)
    spec = model_of(model, engine, precision, trust, allow_versions)
    planned = plan("create", name, to=to, model=spec, options=options, roll_back_interrupted=True)
    return _changed(planned, report)


def update(
    name: str,
    model: str | Path | Bundle | None = None,
    options: Mapping[str, object] | None = None,
    *,
    to: str | None = None,
    previous: bool = False,
    revision: int | None = None,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
    report: Callable[[str], None] | None = None,
) -> Receipt:
    """Change the model, the options, or both; options that are not given keep their values.

    previous: restore the previous version; revision: that of this number in `history`.  Raises NotDeployed, and what
    `deploy` does.
    """
    spec = None
    if model is not None:
        check("update", name, to, options)
        spec = model_of(model, engine, precision, trust, allow_versions)
    planned = plan(
        "update",
        name,
        to=to,
        model=spec,
        options=options,
        previous=previous,
        revision=revision,
        roll_back_interrupted=True,
    )
    return _changed(planned, report)


def _changed(planned: Planned, report: Callable[[str], None] | None) -> Receipt:
    say = report or (lambda _: None)
    for finding in planned.findings:
        say(str(finding))
    receipt = _receipt(execute(planned, lambda step: say(step.about), report))
    say(f"{receipt.name} is deployed on {receipt.target}: {receipt.shown().get('url', '')}")
    return receipt


def delete(name: str, *, to: str | None = None) -> None:
    """Delete the deployment and all its resources.  Raises NotDeployed."""
    execute(plan("delete", name, to=to, roll_back_interrupted=True))


def deployments(to: str | None = None) -> list[Receipt]:
    """The user's deployments, by name; to: those on this target, including the ones of other users."""
    return [each.receipt for each in lookup.all_on(to) if each.receipt is not None]


def listed(to: str | None = None, *, states: bool = True) -> list[Listed]:
    """`deployments`, and also those that are unfinished or whose record is damaged.

    states: query all targets for the states, concurrently; one that does not respond in time is `unreachable`.
    """
    found = lookup.all_on(to)
    return with_states(found) if states else found


def status(name: str, *, to: str | None = None, traffic: bool = True) -> tuple[Receipt, Status]:
    """A deployment's receipt and its current status.  Raises NotDeployed.

    traffic: whether to collect the figures of its requests too, which takes seconds on some targets.
    """
    receipt, target = _live(name, to)
    current = target.status(receipt)
    if traffic and isinstance(target, ReportsTraffic) and current.state not in ("restarting", "failing", "gone"):
        try:
            current = replace(current, traffic=target.traffic(receipt))
        except LikewiseError as error:
            current = replace(current, details={**current.details, "traffic": f"unknown: {error.cause}"})
    return receipt, current


def logs(name: str, *, to: str | None = None, lines: int = 100, follow: bool = False) -> Iterator[str]:
    """The last `lines` lines of the deployment's log, without line ends; follow: then new lines as they are written.

    Raises NotDeployed; WrongUsage if the target has no logs.
    """
    receipt = lookup.current(Receipts(), name, to)
    target = open_target(receipt.target)
    if not isinstance(target, Logs):
        raise WrongUsage(f"{receipt.target} offers no logs", remedy="read them with the tools of the backend")
    return target.logs(receipt, lines, follow)


def history(name: str, *, to: str | None = None) -> list[Revision]:
    """The revisions of a deployment, the newest last: those of this user's changes.  Raises NotDeployed."""
    receipts = Receipts()
    return history_of(receipts, lookup.current(receipts, name, to))


def predict(
    name: str, body: bytes, content_type: str = JSON, *, to: str | None = None, later_s: float | None = None
) -> Response:
    """The deployment's response to `POST /invocations`.  Raises NotDeployed.

    later_s: send the request through the target's queue and wait this many seconds for the response; then also raises
    WrongUsage if the target has no queue, and DeadlineExceeded.
    """
    receipt, target = _live(name, to)
    if later_s is None:
        return target.predict(receipt, body, content_type)
    if not isinstance(target, PredictsAsync):
        raise WrongUsage(f"{receipt.target} has no queue for asynchronous requests", remedy="leave out --async")
    return target.predict_later(receipt, body, content_type, later_s)


def predictor(name: str, *, to: str | None = None) -> tuple[Receipt, Callable[[bytes], Response]]:
    """A deployment's receipt, and a function that sends it a JSON request, for many requests.  Raises NotDeployed."""
    receipt = lookup.current(Receipts(), name, to)
    return receipt, poster(receipt)


def poster(receipt: Receipt) -> Callable[[bytes], Response]:
    """A function that sends a JSON request to the deployment.  Raises WrongUsage if it cannot be queried."""
    target = _queryable(receipt)
    return lambda body: target.predict(receipt, body, JSON)


def job(
    model: ModelSpec,
    to: str,
    source: str,
    output: str,
    options: Mapping[str, object] | None = None,
    *,
    name: str = BATCH,
    restart: bool = False,
    on_step: OnStep = lambda _: None,
    progress: Callable[[str], None] | None = None,
) -> JobResult:
    """Run the model as a batch job at the target; see `likewise.targets.base.TransformJob`.

    model: as returned by `model_of`.  Raises WrongUsage if the target does not run jobs, and what the target raises.
    """
    target = job_target(to)
    check_model(model)
    _report_to(progress, target)
    return target.run(model, source, output, options or {}, name=name, restart=restart, on_step=on_step)


def job_target(to: str) -> TransformJob:
    """The target at `to`.  Raises WrongUsage if it does not run jobs."""
    target = open_target(to)
    if not isinstance(target, TransformJob):
        raise WrongUsage(f"{to} does not run jobs", remedy="use --to sagemaker, or run `likewise score`")
    return target


def execute(
    planned: Planned,
    on_step: OnStep = lambda _: None,
    progress: Callable[[str], None] | None = None,
    receipts: Receipts | None = None,
) -> Receipt | None:
    """Execute a plan; see `likewise.targets.apply.apply`.

    progress: called with a line of text when the state that a step waits for changes, if the target reports progress.
    receipts: the user's by default.  Raises Interrupted (Ctrl-C); `listed` then has what is unfinished.
    """
    store, plan = receipts or Receipts(), planned.plan
    _report_to(progress, planned.target)
    try:
        return apply(plan, planned.target, store, on_step)
    except KeyboardInterrupt:
        if receipts is not None or store.unfinished(plan.target, plan.name) is None:
            raise
        remedy = to_finish(plan.verb, plan.name, plan.target)
        raise Interrupted(
            f"stopped: {plan.verb} {plan.name} on {plan.target} is unfinished, as `likewise list` shows", remedy=remedy
        ) from None


def rehearsal_stage(to: str) -> AbstractContextManager[Stage]:
    """The rehearsal environment of the target, until the end of `with`.  Raises WrongUsage if it has none."""
    target = open_target(to)
    if not isinstance(target, Rehearses):
        raise WrongUsage(f"{to} does not support rehearsals", remedy="omit --rehearse: deploying there costs nothing")
    return target.stage()


@contextmanager
def rehearsed(
    model: ModelSpec,
    to: str,
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    on_step: OnStep = lambda _: None,
    progress: Callable[[str], None] | None = None,
) -> Iterator[tuple[Receipt, Stage]]:
    """Execute the plan of a deployment in the target's rehearsal environment; it is deleted at the end of `with`.

    Raises WrongUsage if the target does not support rehearsals, and what `deploy` does.
    """
    check_model(model)  # before the emulator is started
    with rehearsal_stage(to) as stage:
        all_options = {**(options or {}), **stage.options}
        with temporary(model, stage.uri, name, all_options, on_step=on_step, progress=progress) as receipt:
            yield receipt, stage


@contextmanager
def temporary(
    model: ModelSpec,
    to: str,
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    on_step: OnStep = lambda _: None,
    progress: Callable[[str], None] | None = None,
) -> Iterator[Receipt]:
    """A deployment that is deleted at the end of `with` and is not recorded.  Raises what `deploy` does."""
    with scratch_folder("likewise-rehearsal-") as folder:
        receipts = Receipts(folder / "receipts.db")  # not the user's: if this process is killed, nothing is left there
        planned = plan("create", name, to=to, model=model, options=options, receipts=receipts)
        try:
            receipt = _receipt(execute(planned, on_step, progress, receipts))
        except BaseException:  # Ctrl-C: what is not recorded would stay
            roll_back(planned.target, name, receipts)
            raise
        try:
            yield receipt
        finally:
            execute(plan("delete", name, to=to, receipts=receipts), receipts=receipts)


def model_of(
    model: str | Path | Bundle,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
) -> ModelSpec:
    """The spec of the model to deploy, resolved as `find` does."""
    return bundle_of(model, trust, allow_versions).spec(engine, precision)


def _report_to(progress: Callable[[str], None] | None, target: object) -> None:
    """Make the target report its progress, if it supports that."""
    if progress is not None and isinstance(target, ReportsProgress):
        target.progress = progress


def _live(name: str, to: str | None) -> tuple[Receipt, Live]:
    """A deployment's receipt and its target.  Raises WrongUsage if the target does not serve requests."""
    receipt = lookup.current(Receipts(), name, to)
    return receipt, _queryable(receipt)


def _queryable(receipt: Receipt) -> Live:
    target = open_target(receipt.target)
    if not isinstance(target, Live):
        raise WrongUsage(
            f"deployments on {receipt.target} cannot be queried through Likewise",
            remedy="send requests to the deployment directly",
        )
    return target


def _receipt(receipt: Receipt | None) -> Receipt:
    assert receipt is not None  # noqa: S101  only a deletion returns None
    return receipt
