"""A plan carried out: step by step, each written down, taken back where one fails, gone on with where it was cut."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from likewise.core.errors import Busy, LikewiseError
from likewise.receipts import Receipts, Run
from likewise.targets.base import FROM, Outputs, Plan, PlanStep, Receipt, Target

Tell = Callable[[PlanStep], None]


def apply(plan: Plan, target: Target, receipts: Receipts, tell: Tell = lambda _: None) -> Receipt | None:
    """Do the steps of `plan` in order; the receipt of what stands there afterwards, None after a deletion.

    `tell` is called before each. A run of the same plan that was cut off is gone on with: steps that were done look
    for themselves. Where a step fails, it and those before it are taken back, unless it is a deletion, which is only
    ever gone on with.  Raises what the step did, and Busy where another process is at the same deployment.
    """
    with _claimed(receipts, plan.target, plan.name):
        before = receipts.unfinished(plan.target, plan.name)
        if before is not None and before.plan != plan.as_dict():
            _settle(target, plan.name, receipts, before)
            before = None
        outputs = _walked(plan, target, receipts, dict(before.outputs) if before else {}, tell)
        receipt = _receipt(plan, outputs, receipts)
        receipts.end(plan.target, plan.name, None if receipt is None else receipt.as_dict())
        return receipt


def take_back(target: Target, name: str, receipts: Receipts) -> None:
    """Undo what a run that was cut off has begun: what stood there before it stands there again. Busy, as `apply`."""
    with _claimed(receipts, target.uri, name):
        if (before := receipts.unfinished(target.uri, name)) is not None:
            _settle(target, name, receipts, before)


def _settle(target: Target, name: str, receipts: Receipts, run: Run) -> None:
    _undo(Plan.from_dict(run.plan), run.outputs, target)
    receipts.end(target.uri, name, None, keep=True)


def _walked(
    plan: Plan, target: Target, receipts: Receipts, begun: dict[str, Outputs | None], tell: Tell
) -> dict[str, Outputs]:
    """The outputs of all steps; a run that is stopped by a signal stays begun."""
    outputs: dict[str, Outputs] = {}
    for step in plan.steps:
        begun.setdefault(step.id, None)
        receipts.note(plan.target, plan.name, Run(plan.as_dict(), begun))
        tell(step)
        try:
            outputs[step.id] = begun[step.id] = target.do(step.action, _resolved(step.params, outputs))
        except LikewiseError as error:
            if plan.verb != "delete":
                _undone(plan, begun, target, error)
                receipts.end(plan.target, plan.name, None, keep=True)
            raise
    return outputs


def _undone(plan: Plan, begun: Mapping[str, Outputs | None], target: Target, error: LikewiseError) -> None:
    """Take back, without hiding why."""
    try:
        _undo(plan, begun, target)
    except LikewiseError as second:
        error.add_note(f"and taking it back failed: {second.cause}")
        raise error from second


def _undo(plan: Plan, begun: Mapping[str, Outputs | None], target: Target) -> None:
    known = {step: given for step, given in begun.items() if given is not None}
    for step in reversed([step for step in plan.steps if step.id in begun]):
        target.undo(step.action, _resolved(step.params, known))


def _resolved(params: Any, outputs: Mapping[str, Outputs]) -> Any:
    """`params` with what earlier steps gave in the place of the references to it."""
    if isinstance(params, Mapping):
        if set(params) == {FROM}:
            step, key = params[FROM]
            return outputs[step][key]
        return {name: _resolved(value, outputs) for name, value in params.items()}
    return [_resolved(value, outputs) for value in params] if isinstance(params, (list, tuple)) else params


def _receipt(plan: Plan, outputs: Mapping[str, Outputs], receipts: Receipts) -> Receipt | None:
    if plan.model is None:
        return None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    said = receipts.get(plan.target, plan.name)
    receipt = Receipt(plan.target, plan.name, plan.model, plan.options, outputs, now, now)
    if said is None:
        return receipt
    before = {"model": said["model"], "options": said["options"]}
    same = before == {"model": plan.model.as_dict(), "options": dict(plan.options)}  # done again, to mend what stands
    return replace(receipt, created=said["created"], previous=said["previous"] if same else before)


@contextmanager
def _claimed(receipts: Receipts, target: str, deployment: str) -> Iterator[None]:
    """One process at a time for a deployment."""
    name = hashlib.sha256(f"{target}\0{deployment}".encode()).hexdigest()[:16]
    path = Path(receipts.folder, f"{name}.lock")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(
                f"another process is changing {deployment!r} on {target}",
                remedy="wait until it has ended, then run the same command again",
            ) from error
        yield
