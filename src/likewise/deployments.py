"""Deployments over all targets: plan, carry out, ask, change, take down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from likewise.api import Bundle, bundle_of
from likewise.core.errors import AlreadyDeployed, NotDeployed, WrongUsage
from likewise.core.option_fields import as_json, coerce
from likewise.core.spec import ModelSpec
from likewise.receipts import Receipts
from likewise.targets.apply import Tell, apply, take_back
from likewise.targets.base import (
    BATCH,
    Answer,
    AnswersLater,
    Done,
    Finding,
    Live,
    Plan,
    Receipt,
    Rehearses,
    Stage,
    Status,
    Target,
    TransformJob,
    Verb,
    Waits,
    unless_fatal,
)
from likewise.targets.registry import open_target

JSON = "application/json"


@dataclass(frozen=True)
class Planned:
    """A plan with the target that carries it out, and what its check saw that is not fatal."""

    plan: Plan
    target: Target
    findings: Sequence[Finding]


def deploy(
    model: str | Path | Bundle,
    to: str,
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
) -> Receipt:
    """Deploy `model` to the target `to` under `name`; cut off and called again, it is gone on with.

    options: of the target, strings or values.  Raises AlreadyDeployed, DeployFailed, TargetUnavailable, Busy,
    WrongUsage, and what `find` raises.
    """
    wanted = model_of(model, engine, precision, trust)
    return _kept(carry_out(plan("create", name, to=to, model=wanted, options=options, settle=True)))


def update(
    name: str,
    model: str | Path | Bundle | None = None,
    options: Mapping[str, object] | None = None,
    *,
    to: str | None = None,
    previous: bool = False,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
) -> Receipt:
    """Another model, other options, or both; options that are not named stay. previous: back to what was before.

    Raises NotDeployed, and what `deploy` does.
    """
    wanted = None if model is None else model_of(model, engine, precision, trust)
    planned = plan("update", name, to=to, model=wanted, options=options, previous=previous, settle=True)
    return _kept(carry_out(planned))


def delete(name: str, *, to: str | None = None) -> None:
    """Take the deployment down, with all that it holds; NotDeployed."""
    carry_out(plan("delete", name, to=to, settle=True))


def deployments(to: str | None = None) -> list[Receipt]:
    """What has been deployed from here and not taken down, by name; to: on this target, with what it tells itself."""
    held = [Receipt.from_dict(said) for said in Receipts().all()]
    if to is None:
        return held
    target = open_target(to)
    mine = {each.name: each for each in held if each.target == target.uri}
    there = {each.name: each for each in target.found()} if isinstance(target, Live) else {}
    return [mine.get(name) or there[name] for name in sorted({*mine, *there})]


def status(name: str, *, to: str | None = None) -> tuple[Receipt, Status]:
    """A deployment's receipt, and how it is now; NotDeployed."""
    receipt, target = _standing(name, to)
    return receipt, target.status(receipt)


def ask(
    name: str, body: bytes, content_type: str = JSON, *, to: str | None = None, later_s: float | None = None
) -> Answer:
    """What the deployment answers to `POST /invocations`; NotDeployed.

    later_s: by way of the place's queue, waited for as long; WrongUsage where it has none, DeadlineExceeded.
    """
    receipt, target = _standing(name, to)
    if later_s is None:
        return target.predict(receipt, body, content_type)
    if not isinstance(target, AnswersLater):
        raise WrongUsage(f"{receipt.target} answers at once and has no queue", remedy="leave out --async")
    return target.predict_later(receipt, body, content_type, later_s)


def asker(name: str, *, to: str | None = None) -> tuple[Receipt, Callable[[bytes], Answer]]:
    """A deployment's receipt, and what asks it with JSON, for many requests; NotDeployed."""
    receipt, target = _standing(name, to)
    return receipt, lambda body: target.predict(receipt, body, JSON)


def job(
    model: ModelSpec,
    to: str,
    source: str,
    output: str,
    options: Mapping[str, object] | None = None,
    *,
    name: str = BATCH,
    restart: bool = False,
    tell: Tell = lambda _: None,
    progress: Callable[[str], None] | None = None,
) -> Done:
    """Run the model where the data lies, and nowhere else; see `likewise.targets.base.Job`.

    model: as `model_of` gives it.  Raises WrongUsage where the target runs no jobs, and what the target raises.
    """
    target = jobs_of(to)
    _listen(target, progress)
    return target.run(model, source, output, options or {}, name=name, restart=restart, tell=tell)


def jobs_of(to: str) -> TransformJob:
    """The target that runs jobs; WrongUsage where it does not."""
    target = open_target(to)
    if not isinstance(target, TransformJob):
        raise WrongUsage(f"{to} runs no jobs", remedy="sagemaker does; elsewhere: likewise score")
    return target


def plan(
    verb: Verb,
    name: str,
    *,
    to: str | None = None,
    model: ModelSpec | None = None,
    options: Mapping[str, object] | None = None,
    previous: bool = False,
    settle: bool = False,
) -> Planned:
    """What `verb` would do; nothing is changed.

    to: the target's URI, which may be left out where one deployment alone has the name. settle: what another plan for
    this deployment has begun, and was cut off in, is taken back first.
    Raises what the public verbs do; DeployFailed with the first fatal thing that the target's check sees.
    """
    receipts = Receipts()
    uri, current = _whom(receipts, verb, name, to)
    target = open_target(uri)
    wanted, given = _asked(verb, current, model, options or {}, previous)
    typed = coerce(target.Options, given)
    begun = receipts.unfinished(target.uri, name)
    if begun is not None:
        cut = Plan.from_dict(begun.plan)
        if (cut.verb, cut.model, cut.options) == (verb, wanted, as_json(typed)):  # what is asked for now
            return Planned(cut, target, ())
    findings = unless_fatal(target.check(wanted, typed)) if wanted is not None else ()
    if begun is not None and settle:
        take_back(target, name, receipts)
    steps = tuple(target.plan(verb, name, wanted, typed, current))
    return Planned(Plan(target.uri, name, verb, wanted, as_json(typed), steps), target, findings)


def carry_out(
    planned: Planned, tell: Tell = lambda _: None, progress: Callable[[str], None] | None = None
) -> Receipt | None:
    """Do what was planned, and nothing else; see `likewise.targets.apply.apply`.

    progress: gets a line whenever what a step waits for has changed, from a target that waits for long.
    """
    _listen(planned.target, progress)
    return apply(planned.plan, planned.target, Receipts(), tell)


def staged(to: str) -> AbstractContextManager[Stage]:
    """The place of the target's rehearsals, until the end of `with`; WrongUsage where it has none."""
    target = open_target(to)
    if not isinstance(target, Rehearses):
        raise WrongUsage(f"{to} has no rehearsal", remedy="leave out --rehearse: it costs nothing to try it")
    return target.stage()


@contextmanager
def rehearsed(
    model: ModelSpec,
    to: str,
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    tell: Tell = lambda _: None,
    progress: Callable[[str], None] | None = None,
) -> Iterator[tuple[Receipt, Stage]]:
    """The very plan of a deployment, carried out where it costs nothing; deleted at the end of `with`.

    Raises WrongUsage (the target cannot be rehearsed), and what `deploy` does.
    """
    with staged(to) as stage:
        asked = {**(options or {}), **stage.options}
        receipt = _kept(carry_out(plan("create", name, to=stage.uri, model=model, options=asked), tell, progress))
        try:
            yield receipt, stage
        finally:
            delete(name, to=stage.uri)


def model_of(
    model: str | Path | Bundle, engine: str | None = None, precision: str | None = None, trust: bool = False
) -> ModelSpec:
    """What is deployed, found as `find` does."""
    return bundle_of(model, trust).spec(engine, precision)


def _whom(receipts: Receipts, verb: Verb, name: str, to: str | None) -> tuple[str, Receipt | None]:
    """The target's URI and what stands there."""
    if verb != "create":
        current = _current(receipts, name, to)
        return current.target, current
    if to is None:
        raise WrongUsage("where to is not said", remedy="--to TARGET")
    uri = open_target(to).uri
    if receipts.get(uri, name) is not None:  # what others have deployed there, the target's plan looks for
        raise AlreadyDeployed(
            f"{name!r} is deployed on {uri} already", remedy=f"likewise update {name} MODEL, or take another name"
        )
    return uri, None


def _current(receipts: Receipts, name: str, to: str | None) -> Receipt:
    uri = None if to is None else open_target(to).uri
    found = [each for each in receipts.all() if each["name"] == name and uri in (None, each["target"])]
    if not found and to is not None:
        found = [each.as_dict() for each in deployments(to) if each.name == name]
    if not found:
        where = f" on {uri}" if uri else ""
        raise NotDeployed(f"nothing is deployed as {name!r}{where}", remedy="likewise list shows what is")
    if len(found) > 1:
        places = ", ".join(each["target"] for each in found)
        raise WrongUsage(f"{name!r} is deployed on {places}", remedy="say which by --to TARGET; to verify: NAME@TARGET")
    return Receipt.from_dict(found[0])


def _asked(
    verb: Verb, current: Receipt | None, model: ModelSpec | None, options: Mapping[str, object], previous: bool
) -> tuple[ModelSpec | None, dict[str, object]]:
    """The model and all options that are wanted; an update keeps what it does not name."""
    if current is None:
        return model, dict(options)
    if verb == "delete":
        return None, dict(current.options)
    if not previous:
        return model or current.model, {**current.options, **options}
    if current.previous is None:
        raise WrongUsage("there is no earlier version to go back to", remedy="name one: likewise update NAME MODEL")
    if model is not None:
        raise WrongUsage("a model and the previous one are asked for at once", remedy="give one of the two")
    return ModelSpec.from_dict(current.previous["model"]), {**current.previous["options"], **options}


def _listen(target: object, progress: Callable[[str], None] | None) -> None:
    """Hear what a target that waits for long has to tell."""
    if progress is not None and isinstance(target, Waits):
        target.progress = progress


def _standing(name: str, to: str | None) -> tuple[Receipt, Live]:
    """A deployment's receipt and its target, which answers requests."""
    receipt = _current(Receipts(), name, to)
    target = open_target(receipt.target)
    if not isinstance(target, Live):
        raise WrongUsage(f"what is on {receipt.target} answers no requests", remedy="ask it where it runs")
    return receipt, target


def _kept(receipt: Receipt | None) -> Receipt:
    assert receipt is not None  # noqa: S101  only a deletion leaves none
    return receipt
