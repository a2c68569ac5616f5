"""Plans changes of deployments: what a creation, an update or a deletion will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from likewise.bundles.open import is_bundle, open_exactly
from likewise.core.errors import AlreadyDeployed, WrongUsage
from likewise.core.option_fields import as_json, coerce
from likewise.core.spec import ModelSpec
from likewise.engine.load import allowed_engines
from likewise.receipts import Receipts
from likewise.targets import lookup
from likewise.targets.apply import require_idle, roll_back, unfinished_plan
from likewise.targets.base import Finding, Plan, Receipt, Target, Verb, unless_fatal
from likewise.targets.changes import changed_inputs
from likewise.targets.history import former
from likewise.targets.listing import Listed, listed_record
from likewise.targets.registry import open_target


@dataclass(frozen=True)
class Planned:
    """A plan, the target that executes it, and the warnings of the target's check."""

    plan: Plan
    target: Target
    findings: Sequence[Finding]


def check(
    verb: Verb, name: str, to: str | None, options: Mapping[str, object] | None = None, *, executed: bool = True
) -> None:
    """Raise what `plan` and `execute` raise for the name and the options, before a model is fetched.

    executed: whether the plan will be, so that another change of the deployment at the same time is Busy.
    """
    receipts = Receipts()
    uri, current = _current_state(receipts, verb, name, to)
    coerce(open_target(uri).Options, {**(current.options if current is not None else {}), **(options or {})})
    if executed:
        require_idle(receipts, uri, name)


def plan(
    verb: Verb,
    name: str,
    *,
    to: str | None = None,
    model: ModelSpec | None = None,
    options: Mapping[str, object] | None = None,
    previous: bool = False,
    revision: int | None = None,
    roll_back_interrupted: bool = False,
    receipts: Receipts | None = None,
) -> Planned:
    """The plan for `verb`; changes nothing.

    to: the target's URI; optional if only one deployment has this name. previous, revision: return to that version, see
    `update`. roll_back_interrupted: first undo an interrupted run of another plan for this deployment. receipts: the
    user's by default.  Raises what the function for the verb raises; DeployFailed with the first fatal finding of the
    target's check.
    """
    receipts = receipts or Receipts()
    if verb == "delete" and (rest := _rest_of(receipts, name, to)) is not None:
        return _removal(receipts, rest, roll_back_interrupted)
    uri, current = _current_state(receipts, verb, name, to)
    target = open_target(uri)
    back = former(receipts, current, previous, revision)
    spec, requested = _desired(verb, current, model, options or {}, back)
    typed = coerce(target.Options, requested)
    interrupted = unfinished_plan(receipts.unfinished(target.uri, name))
    requested_now = verb, spec, as_json(typed)
    if interrupted is not None and (interrupted.verb, interrupted.model, interrupted.options) == requested_now:
        return Planned(interrupted, target, ())  # resume it
    if spec is not None:
        check_model(spec)
    findings = unless_fatal(target.check(spec, typed, current)) if spec is not None else ()
    if spec is not None and current is not None:
        findings = [*findings, *changed_inputs(current.model, spec)]
    if interrupted is not None and roll_back_interrupted:
        roll_back(target, name, receipts)
    steps = tuple(target.plan(verb, name, spec, typed, current))
    return Planned(Plan(target.uri, name, verb, spec, as_json(typed), steps), target, findings)


def _current_state(receipts: Receipts, verb: Verb, name: str, to: str | None) -> tuple[str, Receipt | None]:
    """The target's URI, and the receipt of the current deployment, None for a creation."""
    if verb != "create":
        current = lookup.current(receipts, name, to)
        return current.target, current
    if to is None:
        raise WrongUsage("no target is given", remedy="add --to TARGET")
    uri = open_target(to).uri
    if receipts.get(uri, name) is not None:  # the target's plan checks for deployments of other users
        run = receipts.unfinished(uri, name)
        deleting = run is not None and run.plan.get("verb") == "delete"
        raise AlreadyDeployed(
            f"{name!r} is {'not yet deleted from' if deleting else 'already deployed on'} {uri}",
            remedy=f"first run: likewise delete {name} --to {uri}"
            if deleting
            else f"likewise update {name} MODEL, or choose another name",
        )
    return uri, None


def _rest_of(receipts: Receipts, name: str, to: str | None) -> Listed | None:
    """The deployment to delete, if it has no receipt: its creation is unfinished, or its record is damaged."""
    record = lookup.recorded(receipts, name, None if to is None else open_target(to).uri)
    if record is None or (rest := listed_record(record, receipts)).receipt is not None:
        return None
    return None if rest.unfinished is None and lookup.existing(record.target, name) is not None else rest


def _removal(receipts: Receipts, rest: Listed, now: bool) -> Planned:
    """The plan for the deletion of what an unfinished creation has left.  now: whether to undo its steps now."""
    target, undone = open_target(rest.target), rest.unfinished
    if now:
        roll_back(target, rest.name, receipts)
    steps = [step.about for step in reversed(undone.steps)] if undone is not None else []
    findings = [Finding("undoes the steps of the unfinished creation", "; ".join(steps), fatal=False)] if steps else []
    plan = Plan(target.uri, rest.name, "delete", None, undone.options if undone is not None else {}, ())
    return Planned(plan, target, () if now else findings)


def _desired(
    verb: Verb,
    current: Receipt | None,
    model: ModelSpec | None,
    options: Mapping[str, object],
    back: tuple[ModelSpec, Mapping[str, object]] | None,
) -> tuple[ModelSpec | None, dict[str, object]]:
    """The desired model and options; an update keeps the current value of everything that is not given.

    back: the former version to return to.
    """
    if current is None:
        return model, dict(options)
    if verb == "delete":
        return None, dict(current.options)
    if back is None:
        return model or current.model, {**current.options, **options}
    if model is not None:
        raise WrongUsage("a model and a former version cannot be given together", remedy="give only one of them")
    return back[0], {**back[1], **options}


def check_model(model: ModelSpec) -> None:
    """Verify the bundle and that an engine of it may run; does nothing if its folder no longer exists.

    Raises CodeNotTrusted, EngineUnavailable, and what `open_exactly` raises.
    """
    if is_bundle(model.folder):
        allowed_engines(open_exactly(model).manifest, model)
