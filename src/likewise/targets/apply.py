"""Executes plans step by step: records each step, rolls back on failure, resumes an interrupted run."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from likewise.core.errors import Busy, LikewiseError
from likewise.core.private_files import open_private
from likewise.receipts import Receipts, Run
from likewise.targets.base import FROM, Outputs, Plan, PlanStep, Receipt, Target
from likewise.targets.history import is_repair, new_revisions

OnStep = Callable[[PlanStep], None]

UNDONE = {"create": "what it had created was deleted", "update": "the update was rolled back"}


def apply(plan: Plan, target: Target, receipts: Receipts, on_step: OnStep = lambda _: None) -> Receipt | None:
    """Execute the steps of `plan` in order; returns the receipt of the deployment, None after a deletion.

    on_step: called before each step.  An interrupted run of the same plan is resumed: its steps are idempotent.  If a
    step fails, it and all earlier ones are undone, except in a deletion, which can only be resumed.
    Raises the failed step's error, and Busy if another process is changing the same deployment.
    """
    with _claimed(receipts, plan.target, plan.name):
        before = receipts.unfinished(plan.target, plan.name)
        if before is not None and before.plan != plan.as_dict():
            _roll_back(target, plan.name, receipts, before)
            before = None
        outputs = _execute(plan, target, receipts, dict(before.outputs) if before else {}, on_step)
        receipt = _receipt(plan, outputs, receipts)
        document = None if receipt is None else receipt.as_dict()
        receipts.finish(plan.target, plan.name, document, revisions=new_revisions(receipts, plan))
        return receipt


def roll_back(target: Target, name: str, receipts: Receipts) -> None:
    """Undo an interrupted run, restoring the state before it.  Raises Busy, as `apply` does."""
    with _claimed(receipts, target.uri, name):
        if (before := receipts.unfinished(target.uri, name)) is not None:
            _roll_back(target, name, receipts, before)


def unfinished_plan(run: Run | None) -> Plan | None:
    """The plan of an unfinished run; None if there is none, or if its record is damaged."""
    try:
        return None if run is None else Plan.from_dict(run.plan)
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def _roll_back(target: Target, name: str, receipts: Receipts, run: Run) -> None:
    revisions: list[dict[str, Any]] = []
    if (plan := unfinished_plan(run)) is not None:
        _undo(plan, run.outputs, target)
        revisions = new_revisions(receipts, plan, run.plan.get("cause") or "it was interrupted")
    receipts.finish(target.uri, name, None, keep=True, revisions=revisions)


def _execute(
    plan: Plan, target: Target, receipts: Receipts, started: dict[str, Outputs | None], on_step: OnStep
) -> dict[str, Outputs]:
    """The outputs of all steps.  A run that is stopped by a signal remains recorded as unfinished.

    started: the outputs of steps that were started, None for those that have not completed; updated in place.
    """
    outputs: dict[str, Outputs] = {}
    for step in plan.steps:
        started.setdefault(step.id, None)
        receipts.record(plan.target, plan.name, Run(plan.as_dict(), started))
        on_step(step)
        try:
            outputs[step.id] = started[step.id] = target.do(step.action, _resolved(step.params, outputs))
        except LikewiseError as error:
            if plan.verb != "delete":
                failed = {**plan.as_dict(), "cause": error.cause}  # in case that undoing fails too
                receipts.record(plan.target, plan.name, Run(failed, started))
                _undo_after(error, plan, started, target)
                revisions = new_revisions(receipts, plan, error.cause)
                receipts.finish(plan.target, plan.name, None, keep=True, revisions=revisions)
                error.cause = f"{error.cause}; {UNDONE[plan.verb]}"
            raise
    return outputs


def _undo_after(error: LikewiseError, plan: Plan, started: Mapping[str, Outputs | None], target: Target) -> None:
    """Undo the steps that were started; if that fails too, raise the original `error` with a note."""
    try:
        _undo(plan, started, target)
    except LikewiseError as second:
        error.add_note(f"undoing the steps so far failed too: {second.cause}")
        raise error from second


def _undo(plan: Plan, started: Mapping[str, Outputs | None], target: Target) -> None:
    known = {step: outputs for step, outputs in started.items() if outputs is not None}
    for step in reversed([step for step in plan.steps if step.id in started]):
        target.undo(step.action, _resolved(step.params, known))


def _resolved(params: Any, outputs: Mapping[str, Outputs]) -> Any:
    """`params` with every `output_of` reference replaced by the output it refers to."""
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
    old = receipts.get(plan.target, plan.name)
    receipt = Receipt(plan.target, plan.name, plan.model, plan.options, outputs, now, now)
    if old is None:
        return receipt
    before = {"model": old["model"], "options": old["options"]}
    return replace(receipt, created=old["created"], previous=old["previous"] if is_repair(plan, old) else before)


def busy(receipts: Receipts, target: str, deployment: str) -> bool:
    """Whether another process is changing the deployment."""
    try:
        require_idle(receipts, target, deployment)
        return False
    except Busy:
        return True


def require_idle(receipts: Receipts, target: str, deployment: str) -> None:
    """Raise Busy if another process is changing the deployment."""
    with _claimed(receipts, target, deployment):
        pass


@contextmanager
def _claimed(receipts: Receipts, target: str, deployment: str) -> Iterator[None]:
    """An exclusive lock on the deployment.  Raises Busy if another process has it."""
    name = hashlib.sha256(f"{target}\0{deployment}".encode()).hexdigest()[:16]
    with os.fdopen(open_private(receipts.folder / f"{name}.lock"), "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(
                f"another process is changing {deployment!r} on {target}",
                remedy="wait until it has finished, then run the same command again",
            ) from error
        yield
