"""The target `sagemaker` where each call fails: nothing that costs is left, and the error says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.aws.account import REGION, Account, logged_in
from tests.support.aws.deployments import ONE, TWO, answers, carried_out, deployed, failure_of
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
    """An account where a container must be ready within two seconds, whatever its endpoint allows it."""
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "data"))
    with rehearsal(Emulator(Images({}), most_wait_s=2)) as emulator, logged_in():
        yield Account(emulator, REGION)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"env": '{"HOW": "exits"}'}, "no such weights"),
        ({"image_url": "three:1"}, "three:1"),
        ({"execution_role_arn": "arn:aws:iam::123456789012:role/nobody"}, "nobody"),
        ({"bundle_in": "s3", "bucket": "nowhere-at-all"}, "nowhere-at-all"),
        ({"bundle_in": "s3", "bucket": "elsewhere"}, "us-west-2"),
        ({"image_url": "123456789012.dkr.ecr.us-west-2.amazonaws.com/x:1"}, "us-west-2"),
        ({"image_url": f"123456789012.dkr.ecr.{REGION}.amazonaws.com/likewise:1"}, "no image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_told_with_its_remedy_and_leaves_nothing(
    account: Account, given: dict[str, str], said: str
) -> None:
    s3 = account.client("s3", "us-west-2")
    s3.create_bucket(Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    with pytest.raises(DeployFailed) as failed:
        deployed(account, "broken", **given)
    assert said in failed.value.cause
    assert failed.value.remedy
    s3.delete_bucket(Bucket="elsewhere")
    assert account.left() == []


@pytest.mark.parametrize(
    ("given", "said"), [({"startup_timeout_s": "60"}, "ping"), ({"timeout_seconds": "1"}, "not ready after 1 seconds")]
)
def test_what_is_never_ready_is_told_with_its_remedy_and_leaves_nothing(
    impatient: Account, given: dict[str, str], said: str
) -> None:
    with pytest.raises(DeployFailed) as failed:
        deployed(impatient, "broken", env='{"HOW": "is never ready"}', **given)
    assert said in failed.value.cause
    assert failed.value.remedy
    assert impatient.left() == []


def test_an_update_that_fails_leaves_the_endpoint_as_it_was(account: Account) -> None:
    receipt = deployed(account, "steady")
    before = account.left()
    with pytest.raises(DeployFailed, match="no such weights"):
        carried_out(account, "update", "steady", TWO, receipt, image_url="two:1", env='{"HOW": "exits"}')
    assert (account.left(), answers(account, receipt)) == (before, "/one:1")


def calls_of(account: Account, verb: Verb, name: str, model: ModelSpec | None, current: Receipt | None) -> list[Call]:
    """All that a plan and its steps ask, each operation of a service once."""
    account.emulator.faults.clear()
    carried_out(account, verb, name, model, current)
    return list(dict.fromkeys(account.emulator.faults.calls))


@pytest.mark.parametrize("kind", ["cut", "cut-after", "throttle", "expired-token", "quota"])
def test_a_creation_that_fails_at_any_call_leaves_nothing(account: Account, kind: Kind) -> None:
    """Each call fails once, and for good as far as that plan goes."""
    calls = calls_of(account, "create", "orphan", ONE, None)
    assert {"CreateModel", "CreateEndpointConfig", "CreateEndpoint", "DescribeEndpoint"} <= {
        each.operation for each in calls
    }
    carried_out(account, "delete", "orphan", None)
    assert account.left() == []
    for call in calls:
        account.emulator.faults.clear()
        account.emulator.faults.add(Fault(kind, 1, call.operation, call.service))
        error = failure_of(lambda: deployed(account, "orphan"))
        if error is None:  # what may be missed without harm: who may not read IAM may deploy all the same
            assert call.operation == "GetRole", call
            carried_out(account, "delete", "orphan", None)
        else:
            assert error.cause
            assert error.remedy, call
            assert "kept-to-itself" not in error.cause
        assert account.left() == [], call
        assert Receipts().unfinished(account.target.uri, "orphan") is None


@pytest.mark.parametrize("kind", ["cut", "cut-after"])
def test_an_update_that_fails_at_any_call_leaves_the_endpoint_as_it_was(account: Account, kind: Kind) -> None:
    receipt = deployed(account, "same")
    before = account.left()
    account.emulator.faults.clear()
    second = carried_out(account, "update", "same", TWO, receipt, image_url="two:1")
    calls = list(dict.fromkeys(account.emulator.faults.calls))
    carried_out(account, "update", "same", ONE, second, image_url="one:1")
    assert account.left() == before
    for call in calls:
        account.emulator.faults.clear()
        account.emulator.faults.add(Fault(kind, 1, call.operation, call.service))
        error = failure_of(lambda: carried_out(account, "update", "same", TWO, receipt, image_url="two:1"))  # noqa: B023
        if error is not None:
            assert error.remedy
            assert (account.left(), answers(account, receipt)) == (before, "/one:1"), call
            continue
        assert call.operation in ("GetRole", "DeleteEndpointConfig", "DeleteModel", "AddTags"), call  # it cleans up
        account.emulator.faults.clear()
        (changed,) = account.target.found()
        assert answers(account, changed) == "/two:1"
        carried_out(account, "delete", "same", None, changed)
        receipt = deployed(account, "same")
        before = account.left()


def test_an_answer_that_is_lost_is_no_failure_where_it_is_asked_again(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS's library sends a request again: what it has made is found, and not made twice."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr(account, "target", SageMakerTarget(account.uri))
    for operation in ("CreateModel", "CreateEndpointConfig", "CreateEndpoint"):
        account.emulator.faults.add(Fault("cut-after", 1, operation))
    receipt = deployed(account, "again")
    assert answers(account, receipt) == "/one:1"


def test_a_deletion_is_gone_on_with_after_each_call_that_fails(account: Account) -> None:
    receipt = deployed(account, "stubborn")
    calls = calls_of(account, "delete", "stubborn", None, receipt)
    for call in calls:
        receipt = deployed(account, "stubborn")
        account.emulator.faults.clear()
        account.emulator.faults.add(Fault("cut", 1, call.operation, call.service))
        with pytest.raises(TargetUnavailable):
            carried_out(account, "delete", "stubborn", None, receipt)
        carried_out(account, "delete", "stubborn", None, receipt)
        assert account.left() == [], call
