"""Deployments on an account of the emulator, made as `likewise.deployments` makes them, but for the user's records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.aws.account import Account

from likewise.core.errors import DeployFailed, LikewiseError
from likewise.core.option_fields import as_json, coerce
from likewise.core.spec import ModelSpec
from likewise.receipts import Receipts
from likewise.targets.apply import apply
from likewise.targets.base import Plan, Receipt, Verb
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions
from likewise.targets.sagemaker.target import SageMakerTarget

ONE, TWO = (ModelSpec("sha256:" + mark * 64, Path("/nowhere"), f"models:/m/{mark}", trust=True) for mark in "12")


def planned(
    account: Account,
    verb: Verb,
    name: str,
    model: ModelSpec | None,
    current: Receipt | None = None,
    **given: str | None,
) -> tuple[Plan, SageMakerTarget]:
    """A plan; given: options that differ from those of `current`, or of a deployment of the image `one:1`."""
    target = account.target
    kept = dict(current.options) if current else account.options("one:1")
    options = coerce(SageMakerOptions, {**kept, **given})
    findings = target.check(model, options) if model else ()
    for finding in findings:
        raise DeployFailed(finding.cause, remedy=finding.remedy)
    steps = tuple(target.plan(verb, name, model, options, current))
    return Plan(target.uri, name, verb, model, as_json(options), steps), target


def carried_out(
    account: Account,
    verb: Verb,
    name: str,
    model: ModelSpec | None,
    current: Receipt | None = None,
    **given: str | None,
) -> Receipt | None:
    """Make a plan and carry it out."""
    plan, target = planned(account, verb, name, model, current, **given)
    return apply(plan, target, Receipts())


def deployed(account: Account, name: str, model: ModelSpec = ONE, **given: str | None) -> Receipt:
    """Make a deployment."""
    receipt = carried_out(account, "create", name, model, **given)
    assert receipt is not None
    return receipt


def answers(account: Account, receipt: Receipt) -> str:
    """The bundle that answers for a deployment."""
    answer = account.target.predict(receipt, b"{}", "application/json")
    assert answer.status == 200, answer
    return str(json.loads(answer.body)[0])


def failure_of(work: Callable[[], object]) -> LikewiseError | None:
    """How it fails; None where it does not."""
    try:
        work()
    except LikewiseError as error:
        return error
    return None
