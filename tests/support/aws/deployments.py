"""Deployments in an emulated account, as by `likewise.deployments` but without its records."""

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
    """A plan and its target; given: options that override those of `current`, or of the image `one:1`."""
    target = account.target
    base = dict(current.options) if current else account.options("one:1")
    options = coerce(SageMakerOptions, {**base, **given})
    findings = target.check(model, options) if model else ()
    for finding in findings:
        raise DeployFailed(finding.cause, remedy=finding.remedy)
    steps = tuple(target.plan(verb, name, model, options, current))
    return Plan(target.uri, name, verb, model, as_json(options), steps), target


def run_plan(
    account: Account,
    verb: Verb,
    name: str,
    model: ModelSpec | None,
    current: Receipt | None = None,
    **given: str | None,
) -> Receipt | None:
    """Make a plan and execute it; the receipt, None for a deletion."""
    plan, target = planned(account, verb, name, model, current, **given)
    return apply(plan, target, Receipts())


def deployed(account: Account, name: str, model: ModelSpec = ONE, **given: str | None) -> Receipt:
    """Create a deployment and return its receipt."""
    receipt = run_plan(account, "create", name, model, **given)
    assert receipt is not None
    return receipt


def serving_bundle(account: Account, receipt: Receipt) -> str:
    """The bundle that serves a deployment, as its container reports it."""
    response = account.target.predict(receipt, b"{}", "application/json")
    assert response.status == 200, response
    return str(json.loads(response.body)[0])


def failure_of(work: Callable[[], object]) -> LikewiseError | None:
    """The error that `work` raises, None if it succeeds."""
    try:
        work()
    except LikewiseError as error:
        return error
    return None
