"""The target `sagemaker` when each call fails: nothing that costs is left, and the error contains a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.aws.account import REGION, SECRET, Account, logged_in
from tests.support.aws.deployments import ONE, TWO, deployed, failure_of, run_plan, serving_bundle
from tests.support.aws.faults import Call, Fault, Kind
from tests.support.aws.images import Images

from likewise.core.errors import DeployFailed, TargetUnavailable
from likewise.core.spec import ModelSpec
from likewise.receipts import Receipts
from likewise.targets.base import Receipt, Verb
from likewise.targets.sagemaker.emulator import Emulator, rehearsal
from likewise.targets.sagemaker.target import SageMakerTarget

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sagemaker")]
pytest_plugins = ("tests.support.aws.fixtures",)


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An account in which containers must be ready within two seconds, whatever their startup timeout."""
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "data"))
    with rehearsal(Emulator(Images({}), max_startup_s=2)) as emulator, logged_in():
        yield Account(emulator, REGION)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"env": '{"HOW": "exits"}'}, "the weights do not exist"),
        ({"image_url": "three:1"}, "three:1"),
        ({"execution_role_arn": "arn:aws:iam::123456789012:role/nobody"}, "nobody"),
        ({"bundle_in": "s3", "bucket": "nowhere-at-all"}, "nowhere-at-all"),
        ({"bundle_in": "s3", "bucket": "elsewhere"}, "us-west-2"),
        ({"image_url": "123456789012.dkr.ecr.us-west-2.amazonaws.com/x:1"}, "us-west-2"),
        ({"image_url": f"123456789012.dkr.ecr.{REGION}.amazonaws.com/likewise:1"}, "no image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failed_deployment_is_reported_with_a_remedy_and_leaves_nothing(
    account: Account, given: dict[str, str], message: str
) -> None:
    s3 = account.client("s3", "us-west-2")
    s3.create_bucket(Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    with pytest.raises(DeployFailed) as failed:
        deployed(account, "broken", **given)
    assert message in failed.value.cause
    assert failed.value.remedy
    s3.delete_bucket(Bucket="elsewhere")
    assert account.resources() == []


@pytest.mark.parametrize(
    ("given", "message"),
    [({"startup_timeout_s": "60"}, "ping"), ({"timeout_seconds": "1"}, "not ready after 1 seconds")],
)
def test_a_container_that_is_never_ready_is_reported_with_a_remedy_and_leaves_nothing(
    impatient: Account, given: dict[str, str], message: str
) -> None:
    with pytest.raises(DeployFailed) as failed:
        deployed(impatient, "broken", env='{"HOW": "never ready"}', **given)
    assert message in failed.value.cause
    assert failed.value.remedy
    assert impatient.resources() == []


def test_a_failed_update_leaves_the_endpoint_unchanged(account: Account) -> None:
    receipt = deployed(account, "steady")
    before = account.resources()
    with pytest.raises(DeployFailed, match="the weights do not exist"):
        run_plan(account, "update", "steady", TWO, receipt, image_url="two:1", env='{"HOW": "exits"}')
    assert (account.resources(), serving_bundle(account, receipt)) == (before, "/one:1")


def calls_of(account: Account, verb: Verb, name: str, model: ModelSpec | None, current: Receipt | None) -> list[Call]:
    """The distinct calls of a plan and its steps, in order."""
    account.emulator.faults.clear()
    run_plan(account, verb, name, model, current)
    return list(dict.fromkeys(account.emulator.faults.calls))


@pytest.mark.parametrize("kind", ["cut", "cut-after", "throttle", "expired-token", "quota"])
def test_a_creation_that_fails_at_any_call_leaves_nothing(account: Account, kind: Kind) -> None:
    """Each call fails once; the target does not retry it in that plan."""
    calls = calls_of(account, "create", "orphan", ONE, None)
    assert {"CreateModel", "CreateEndpointConfig", "CreateEndpoint", "DescribeEndpoint"} <= {
        each.operation for each in calls
    }
    run_plan(account, "delete", "orphan", None)
    assert account.resources() == []
    for call in calls:
        account.emulator.faults.clear()
        account.emulator.faults.add(Fault(kind, 1, call.operation, call.service))
        error = failure_of(lambda: deployed(account, "orphan"))
        if error is None:  # an optional call: deploying does not require permission to read IAM
            assert call.operation == "GetRole", call
            run_plan(account, "delete", "orphan", None)
        else:
            assert error.cause
            assert error.remedy, call
            assert SECRET not in error.cause
        assert account.resources() == [], call
        assert Receipts().unfinished(account.target.uri, "orphan") is None


@pytest.mark.parametrize("kind", ["cut", "cut-after"])
def test_an_update_that_fails_at_any_call_leaves_the_endpoint_unchanged(account: Account, kind: Kind) -> None:
    receipt = deployed(account, "same")
    before = account.resources()
    account.emulator.faults.clear()
    second = run_plan(account, "update", "same", TWO, receipt, image_url="two:1")
    calls = list(dict.fromkeys(account.emulator.faults.calls))
    run_plan(account, "update", "same", ONE, second, image_url="one:1")
    assert account.resources() == before
    for call in calls:
        account.emulator.faults.clear()
        account.emulator.faults.add(Fault(kind, 1, call.operation, call.service))
        error = failure_of(lambda: run_plan(account, "update", "same", TWO, receipt, image_url="two:1"))  # noqa: B023
        if error is not None:
            assert error.remedy
            assert (account.resources(), serving_bundle(account, receipt)) == (before, "/one:1"), call
            continue
        assert call.operation in ("GetRole", "DeleteEndpointConfig", "DeleteModel", "AddTags"), (
            call
        )  # only cleanup fails
        account.emulator.faults.clear()
        (changed,) = account.target.found()
        assert serving_bundle(account, changed) == "/two:1"
        run_plan(account, "delete", "same", None, changed)
        receipt = deployed(account, "same")
        before = account.resources()


def test_a_lost_response_is_no_failure_if_the_request_is_retried(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3 sends the request again: the created resource is found and not created twice."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr(account, "target", SageMakerTarget(account.uri))
    for operation in ("CreateModel", "CreateEndpointConfig", "CreateEndpoint"):
        account.emulator.faults.add(Fault("cut-after", 1, operation))
    receipt = deployed(account, "again")
    assert serving_bundle(account, receipt) == "/one:1"


def test_a_deletion_can_be_resumed_after_any_failed_call(account: Account) -> None:
    receipt = deployed(account, "stubborn")
    calls = calls_of(account, "delete", "stubborn", None, receipt)
    for call in calls:
        receipt = deployed(account, "stubborn")
        account.emulator.faults.clear()
        account.emulator.faults.add(Fault("cut", 1, call.operation, call.service))
        with pytest.raises(TargetUnavailable):
            run_plan(account, "delete", "stubborn", None, receipt)
        run_plan(account, "delete", "stubborn", None, receipt)
        assert account.resources() == [], call
