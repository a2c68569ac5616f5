"""The target `sagemaker` against the emulator: real requests over its wire, processes in the place of containers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.conformance.target_room import upper_bundle
from tests.process.sagemaker_account import REGION, AwsAccount, aws_account

from likewise.core.errors import (
    AlreadyDeployed,
    DeployFailed,
    LikewiseError,
    NotDeployed,
    TargetUnavailable,
    WrongUsage,
)
from likewise.receipts import Receipts
from likewise.targets.apply import apply
from likewise.targets.base import Model, Plan, Receipt, Verb
from likewise.targets.options import as_json, coerce
from likewise.targets.sagemaker.emulator.faults import Call, Fault, Kind
from likewise.targets.sagemaker.invoking import answer_of, invoke_async
from likewise.targets.sagemaker.options import SageMakerOptions
from likewise.targets.sagemaker.registry import tag_of
from likewise.targets.sagemaker.target import SageMakerTarget
from likewise.targets.sagemaker.transform import transform
from likewise.targets.sagemaker.transform_options import TransformOptions

pytestmark = pytest.mark.slow

ONE, TWO = (Model("sha256:" + mark * 64, Path("/nowhere"), f"models:/m/{mark}", trust=True) for mark in "12")


@pytest.fixture(scope="module")
def quick() -> Iterator[AwsAccount]:
    """An account whose containers start at once."""
    images = {name: Path("/", name) for name in ("one:1", "two:1")}
    with pytest.MonkeyPatch.context() as patch, aws_account(images, patch.setenv, quick=True) as account:
        yield account


@pytest.fixture
def account(quick: AwsAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsAccount]:
    """The same; nothing may be left there by a test."""
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "data"))
    quick.emulator.faults.clear()
    yield quick
    quick.emulator.faults.clear()
    for receipt in quick.target.found():
        carried_out(quick, "delete", receipt.name, None, current=receipt)
    assert quick.left() == []


def planned(
    account: AwsAccount, verb: Verb, name: str, model: Model | None, current: Receipt | None = None, **given: str | None
) -> tuple[Plan, SageMakerTarget]:
    """As `likewise.deployments` makes a plan."""
    target = account.target
    kept = dict(current.options) if current else account.options("one:1")
    options = coerce(SageMakerOptions, {**kept, **given})
    findings = target.check(model, options) if model else ()
    for finding in findings:
        raise DeployFailed(finding.cause, remedy=finding.remedy)
    steps = tuple(target.plan(verb, name, model, options, current))
    return Plan(target.uri, name, verb, model, as_json(options), steps), target


def carried_out(
    account: AwsAccount, verb: Verb, name: str, model: Model | None, current: Receipt | None = None, **given: str | None
) -> Receipt | None:
    """A plan, made and done."""
    plan, target = planned(account, verb, name, model, current, **given)
    return apply(plan, target, Receipts())


def deployed(account: AwsAccount, name: str, model: Model = ONE, **given: str | None) -> Receipt:
    """A deployment."""
    receipt = carried_out(account, "create", name, model, **given)
    assert receipt is not None
    return receipt


def answers(account: AwsAccount, receipt: Receipt) -> str:
    """The bundle that answers."""
    answer = account.target.predict(receipt, b"{}", "application/json")
    assert answer.status == 200, answer
    return str(json.loads(answer.body)[0])


# --- what stands there -----------------------------------------------------------------------------------------------


def test_a_deployment_is_made_of_three_things_and_says_what_it_costs(account: AwsAccount) -> None:
    receipt = deployed(account, "three", tags='{"team": "text"}', startup_timeout_s="120", volume_size_gb="20")
    assert receipt.output("costs") == "1 x ml.m5.xlarge, by the hour"
    assert answers(account, receipt) == "/one:1"
    sagemaker = account.client("sagemaker")
    config = sagemaker.describe_endpoint_config(EndpointConfigName=receipt.output("config"))
    (variant,) = config["ProductionVariants"]
    assert (variant["ContainerStartupHealthCheckTimeoutInSeconds"], variant["VolumeSizeInGB"]) == (120, 20)
    tags = {each["Key"]: each["Value"] for each in sagemaker.list_tags(ResourceArn=config["EndpointConfigArn"])["Tags"]}
    assert (tags["likewise:bundle"], tags["team"]) == (ONE.digest, "text")
    status = account.target.status(receipt)
    assert (status.state, status.url, status.details["bundle"]) == ("ready", receipt.output("url"), ONE.digest)
    assert status.details["costs"] == receipt.output("costs")


def test_what_others_have_deployed_is_found_with_its_options_and_can_be_changed(account: AwsAccount) -> None:
    receipt = deployed(account, "theirs", instance_count="2", instance_type="ml.c5.large", env='{"A": "b"}')
    (found,) = account.target.found()
    assert (found.name, found.model.digest, found.model.trust) == ("theirs", ONE.digest, True)
    kept = ("instance_count", "instance_type", "env", "execution_role_arn", "variant_name")
    assert {key: found.options[key] for key in kept} == {key: receipt.options[key] for key in kept}
    changed = carried_out(account, "update", "theirs", TWO, found, image_url="two:1")
    assert changed is not None
    assert answers(account, changed) == "/two:1"


def test_an_endpoint_that_is_not_ours_is_left_alone(account: AwsAccount) -> None:
    sagemaker = account.client("sagemaker")
    container = {"Image": "one:1"}
    sagemaker.create_model(ModelName="foreign", PrimaryContainer=container, ExecutionRoleArn=account.role)
    variant = {"VariantName": "v", "ModelName": "foreign", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="foreign", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="foreign", EndpointConfigName="foreign")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="foreign", WaiterConfig={"Delay": 1})
    assert account.target.found() == []
    with pytest.raises(AlreadyDeployed, match="foreign"):
        deployed(account, "foreign")
    assert sagemaker.describe_endpoint(EndpointName="foreign")["EndpointStatus"] == "InService"
    sagemaker.delete_endpoint(EndpointName="foreign")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="foreign", WaiterConfig={"Delay": 1})
    sagemaker.delete_endpoint_config(EndpointConfigName="foreign")
    sagemaker.delete_model(ModelName="foreign")


def test_nothing_is_deployed_by_this_name(account: AwsAccount) -> None:
    receipt = deployed(account, "short")
    carried_out(account, "delete", "short", None, receipt)
    assert account.left() == []
    assert account.target.status(receipt).state == "gone"
    with pytest.raises(NotDeployed):
        account.target.predict(receipt, b"{}", "application/json")
    with pytest.raises(NotDeployed):
        planned(account, "update", "short", TWO, receipt)
    plan, _ = planned(account, "delete", "short", None, receipt)  # what stands is gone: the receipt goes too
    assert [step.id for step in plan.steps] == ["remove_endpoint", "remove_configs", "remove_models"]


def test_the_deletion_removes_what_earlier_plans_have_left(account: AwsAccount) -> None:
    receipt = deployed(account, "leftover")
    account.emulator.faults.add(Fault("throttle", operation="DeleteModel"))
    changed = carried_out(account, "update", "leftover", TWO, receipt, image_url="two:1")
    assert changed is not None
    assert changed.output("left") == [receipt.output("model")]
    carried_out(account, "delete", "leftover", None, changed)
    assert account.left() == []


# --- updates ---------------------------------------------------------------------------------------------------------


def test_an_update_removes_what_it_replaces_unless_it_is_to_be_kept(account: AwsAccount) -> None:
    first = deployed(account, "kept")
    second = carried_out(account, "update", "kept", TWO, first, image_url="two:1", archive="true")
    assert second is not None
    assert {first.output("model"), first.output("config")} <= set(account.left())
    third = carried_out(account, "update", "kept", ONE, second, image_url="one:1", archive="false")
    assert third is not None
    assert answers(account, third) == "/one:1"
    assert third.output("model") == first.output("model")  # the same by name, so it was found again
    assert second.output("model") not in account.left()


def test_another_instance_count_is_another_configuration_of_the_same_model(account: AwsAccount) -> None:
    first = deployed(account, "wider")
    second = carried_out(account, "update", "wider", ONE, first, instance_count="3")
    assert second is not None
    assert second.output("model") == first.output("model")
    assert second.output("config") != first.output("config")
    assert account.target.status(second).details["instances"] == {"AllTraffic": 3}
    again = carried_out(account, "update", "wider", ONE, second)  # nothing to do
    assert again is not None
    assert again.output("config") == second.output("config")


def test_a_canary_with_alarms_is_asked_for_as_sagemaker_has_it(account: AwsAccount) -> None:
    receipt = deployed(account, "canary")
    metric = {"MetricName": "m", "Namespace": "n", "Period": 60, "Statistic": "Sum", "EvaluationPeriods": 1}
    account.client("cloudwatch").put_metric_alarm(
        AlarmName="errors", ComparisonOperator="GreaterThanThreshold", Threshold=1, **metric
    )
    given = {
        "timeout_seconds": "600",
        "image_url": "two:1",
        "traffic": "canary",
        "traffic_percent": "20",
        "rollback_alarms": '["errors"]',
    }
    carried_out(account, "update", "canary", TWO, receipt, **given)
    said = account.client("sagemaker").describe_endpoint(EndpointName="canary")["LastDeploymentConfig"]
    routing = said["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert (routing["Type"], routing["CanarySize"]["Value"]) == ("CANARY", 20)
    assert said["AutoRollbackConfiguration"]["Alarms"] == [{"AlarmName": "errors"}]
    with pytest.raises(DeployFailed, match="no alarm 'latency'"):
        planned(account, "update", "canary", TWO, receipt, rollback_alarms='["errors", "latency"]')


def test_a_variant_is_added_beside_the_one_that_answers(account: AwsAccount) -> None:
    first = deployed(account, "beside")
    second = carried_out(account, "update", "beside", TWO, first, mode="add", variant_name="next", image_url="two:1")
    assert second is not None
    status = account.target.status(second)
    assert status.details["instances"] == {"AllTraffic": 1, "next": 1}
    assert {first.output("model"), second.output("model")} <= set(account.left())
    carried_out(account, "delete", "beside", None, second)
    assert account.left() == []


def test_autoscaling_is_made_kept_over_an_update_and_removed(account: AwsAccount) -> None:
    scaling = account.client("application-autoscaling")

    def scaled() -> list[tuple[int, int]]:
        found = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        return [(each["MinCapacity"], each["MaxCapacity"]) for each in found]

    first = deployed(account, "scaled", max_instances="4", scale_in_cooldown_s="600")
    policy = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"][0]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["ScaleInCooldown"] == 600
    assert scaled() == [(1, 4)]
    with pytest.raises(DeployFailed):
        carried_out(account, "update", "scaled", TWO, first, image_url="two:1", env='{"HOW": "exits"}')
    assert (scaled(), answers(account, first)) == ([(1, 4)], "/one:1")  # put back
    second = carried_out(account, "update", "scaled", TWO, first, image_url="two:1", max_instances="6")
    assert scaled() == [(1, 6)]
    carried_out(account, "delete", "scaled", None, second)
    assert scaled() == []


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"env": '{"HOW": "exits"}'}, "no such weights"),
        ({"env": '{"HOW": "is never ready"}', "startup_timeout_s": "60"}, "ping"),
        ({"image_url": "three:1"}, "three:1"),
        ({"execution_role_arn": "arn:aws:iam::123456789012:role/nobody"}, "nobody"),
        ({"bundle_in": "s3", "bucket": "nowhere-at-all"}, "nowhere-at-all"),
        ({"bundle_in": "s3", "bucket": "elsewhere"}, "us-west-2"),
        ({"image_url": "123456789012.dkr.ecr.us-west-2.amazonaws.com/x:1"}, "us-west-2"),
        ({"image_url": f"123456789012.dkr.ecr.{REGION}.amazonaws.com/likewise:1"}, "no image"),
        ({"timeout_seconds": "1", "env": '{"HOW": "is never ready"}'}, "not ready after 1 seconds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_told_with_its_remedy_and_leaves_nothing(
    account: AwsAccount, given: dict[str, str], said: str
) -> None:
    s3 = account.client("s3", "us-west-2")
    s3.create_bucket(Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    with pytest.raises(DeployFailed) as failed:
        deployed(account, "broken", **given)
    assert said in failed.value.cause
    assert failed.value.remedy
    s3.delete_bucket(Bucket="elsewhere")
    assert account.left() == []


def test_an_update_that_fails_leaves_the_endpoint_as_it_was(account: AwsAccount) -> None:
    receipt = deployed(account, "steady")
    before = account.left()
    with pytest.raises(DeployFailed, match="no such weights"):
        carried_out(account, "update", "steady", TWO, receipt, image_url="two:1", env='{"HOW": "exits"}')
    assert (account.left(), answers(account, receipt)) == (before, "/one:1")


def failure_of(work: Callable[[], object]) -> LikewiseError | None:
    """How it fails, None where it does not."""
    try:
        work()
    except LikewiseError as error:
        return error
    return None


def calls_of(account: AwsAccount, verb: Verb, name: str, model: Model | None, current: Receipt | None) -> list[Call]:
    """All that a plan and its steps ask, each operation of a service once."""
    account.emulator.faults.clear()
    carried_out(account, verb, name, model, current)
    return list(dict.fromkeys(account.emulator.faults.calls))


@pytest.mark.parametrize("kind", ["cut", "cut-after", "throttle", "expired-token", "quota"])
def test_a_creation_that_fails_at_any_call_leaves_nothing(account: AwsAccount, kind: Kind) -> None:
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
def test_an_update_that_fails_at_any_call_leaves_the_endpoint_as_it_was(account: AwsAccount, kind: Kind) -> None:
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
    account: AwsAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS's library sends a request again: what it has made is found, and not made twice."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr(account, "target", SageMakerTarget(account.uri))
    for operation in ("CreateModel", "CreateEndpointConfig", "CreateEndpoint"):
        account.emulator.faults.add(Fault("cut-after", 1, operation))
    receipt = deployed(account, "again")
    assert answers(account, receipt) == "/one:1"


def test_a_deletion_is_gone_on_with_after_each_call_that_fails(account: AwsAccount) -> None:
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


# --- without waiting, in S3, and later -------------------------------------------------------------------------------


def test_a_deployment_that_is_not_waited_for_is_told_to_start(account: AwsAccount) -> None:
    receipt = deployed(account, "later", synchronous="false")
    assert account.target.status(receipt).state in ("starting", "ready")
    account.client("sagemaker").get_waiter("endpoint_in_service").wait(EndpointName="later", WaiterConfig={"Delay": 1})
    with pytest.raises(WrongUsage, match="not waited for"):
        planned(account, "update", "later", TWO, receipt)


def test_progress_is_told_while_it_waits(account: AwsAccount) -> None:
    plan, target = planned(account, "create", "told", ONE)
    lines: list[str] = []
    target.progress = lines.append
    apply(plan, target, Receipts())
    target.progress = lambda _: None
    assert lines[-1].startswith("told: InService (")


def test_the_plan_holds_every_request_and_no_secret(account: AwsAccount) -> None:
    plan, _ = planned(account, "create", "open", ONE, env='{"A": "$(rm -rf /)"}')
    said = json.dumps(plan.as_dict())
    assert [step.id for step in plan.steps] == ["model", "config", "endpoint", "wait"]
    assert plan.steps[0].params["request"]["PrimaryContainer"]["Environment"]["A"] == "$(rm -rf /)"
    assert "kept-to-itself" not in said
    assert "AKIA" not in said
    assert planned(account, "create", "open", ONE, env='{"A": "$(rm -rf /)"}')[0].key == plan.key


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upper_bundle(tmp_path_factory.mktemp("models") / "one", "1:")


@pytest.fixture
def bundle(bundles: Path) -> Model:
    digest = json.loads((bundles / "likewise.json").read_bytes())["digest"]
    return Model(digest, bundles, "models:/m/1", trust=True)


def test_an_image_that_cannot_be_made_leaves_no_repository(account: AwsAccount, bundle: Model) -> None:
    with pytest.raises(LikewiseError) as failed:
        deployed(account, "unmade", bundle, image_url=None, base_image="/nowhere/base.tar")
    assert failed.value.remedy
    assert account.client("ecr").describe_repositories()["repositories"] == []


def test_an_image_that_is_in_ecr_is_neither_made_nor_sent(account: AwsAccount) -> None:
    ecr = account.client("ecr")
    options = coerce(SageMakerOptions, {})
    tag = tag_of(ONE, options.platform, None, version("likewise"))
    ecr.create_repository(repositoryName="likewise")
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": {"digest": "sha256:" + "0" * 64}, "layers": []}
    ecr.put_image(
        repositoryName="likewise", imageTag=tag, imageManifest=json.dumps(manifest), imageManifestMediaType=kind
    )
    plan, _ = planned(account, "create", "there", ONE, image_url=None)
    assert [step.id for step in plan.steps] == ["model", "config", "endpoint", "wait"]
    assert "/likewise@sha256:" in plan.steps[0].params["request"]["PrimaryContainer"]["Image"]
    other, _ = planned(account, "create", "there", TWO, image_url=None, instance_type="ml.c7g.large")
    assert [step.id for step in other.steps][:2] == ["repository", "image"]
    assert other.steps[1].params["platform"] == "linux/arm64"
    ecr.delete_repository(repositoryName="likewise", force=True)


def test_a_bundle_in_s3_is_put_there_once_and_removed(account: AwsAccount, bundle: Model) -> None:
    receipt = deployed(account, "archived", bundle, bundle_in="s3")
    (key,) = account.objects()
    assert key == f"likewise/archived/{bundle.digest.removeprefix('sha256:')}/model.tar.gz"
    assert receipt.output("data") == f"s3://sagemaker-{REGION}-123456789012/{key}"
    account.emulator.faults.clear()
    wider = carried_out(account, "update", "archived", bundle, receipt, instance_count="2")
    assert not any(call.service == "s3" and call.operation == "PUT" for call in account.emulator.faults.calls)
    carried_out(account, "delete", "archived", None, wider)
    assert account.left() == []


def test_a_bundle_whose_deployment_fails_is_not_left_in_s3(account: AwsAccount, bundle: Model) -> None:
    with pytest.raises(DeployFailed):
        deployed(account, "unsent", bundle, bundle_in="s3", env='{"HOW": "exits"}')
    assert account.objects() == []


@pytest.fixture
def bucket(account: AwsAccount) -> Iterator[str]:
    s3 = account.client("s3")
    s3.create_bucket(Bucket="texts", CreateBucketConfiguration={"LocationConstraint": REGION})
    yield "texts"
    for each in s3.list_objects_v2(Bucket="texts").get("Contents", []):
        s3.delete_object(Bucket="texts", Key=each["Key"])
    s3.delete_bucket(Bucket="texts")


def test_an_asynchronous_request_is_answered_in_s3(account: AwsAccount, bucket: str) -> None:
    config = json.dumps({"OutputConfig": {"S3OutputPath": f"s3://{bucket}/out"}})
    receipt = deployed(account, "async", async_inference_config=config)
    target = account.target
    aws = target.aws_of(receipt)
    later = invoke_async(aws, "async", b'{"inputs": ["a"]}', "application/json")
    assert later.output.startswith(f"s3://{bucket}/out")
    answer = answer_of(aws, later, target.patience, 30)
    assert (answer.status, json.loads(answer.body)) == (200, ["/one:1", '{"inputs": ["a"]}'])


def test_an_endpoint_that_answers_at_once_takes_no_asynchronous_request(account: AwsAccount) -> None:
    receipt = deployed(account, "atonce")
    with pytest.raises(WrongUsage, match="atonce"):
        invoke_async(account.target.aws_of(receipt), "atonce", b"{}", "application/json")


def job_options(account: AwsAccount, **given: str) -> SageMakerOptions:
    return coerce(SageMakerOptions, {**account.options("one:1"), **given})


def test_a_batch_job_leaves_its_output_and_no_model(account: AwsAccount, bucket: str) -> None:
    account.client("s3").put_object(Bucket=bucket, Key="in/a.csv", Body=b"a\nb\n")
    target, job = account.target, TransformOptions(accept="application/json")
    source, output = f"s3://{bucket}/in", f"s3://{bucket}/out"
    done = transform(target, ONE, source, output, job_options(account), job)
    assert done.status == "Completed"
    assert [key for key in account.objects() if key.endswith("a.csv.out")]
    assert account.client("sagemaker").list_models()["Models"] == []
    again = transform(target, ONE, source, output, job_options(account), job)
    assert again.id == done.id  # it is done
    once_more = transform(target, ONE, source, output, job_options(account), job, restart=True)
    assert once_more.id == f"{done.id}-2"


def test_a_batch_job_that_fails_is_told_and_leaves_no_model(account: AwsAccount, bucket: str) -> None:
    account.client("s3").put_object(Bucket=bucket, Key="in/a.csv", Body=b"a\nb\n")
    asked = (ONE, f"s3://{bucket}/in", f"s3://{bucket}/failed", job_options(account, env='{"HOW": "exits"}'))
    with pytest.raises(DeployFailed, match="no such weights"):
        transform(account.target, *asked)
    assert account.client("sagemaker").list_models()["Models"] == []


@pytest.mark.parametrize("kind", ["cut", "cut-after"])
def test_a_batch_job_that_fails_at_any_call_costs_nothing(account: AwsAccount, bucket: str, kind: Kind) -> None:
    sagemaker = account.client("sagemaker")
    account.client("s3").put_object(Bucket=bucket, Key="in/a.csv", Body=b"a\n")

    def run() -> None:
        output = f"s3://{bucket}/{kind}"
        transform(account.target, ONE, f"s3://{bucket}/in", output, job_options(account), restart=True)

    account.emulator.faults.clear()
    run()
    for call in dict.fromkeys(account.emulator.faults.calls):
        account.emulator.faults.clear()
        account.emulator.faults.add(Fault(kind, 1, call.operation, call.service))
        error = failure_of(run)
        assert error.remedy if error is not None else call.operation == "GetRole", call
        running = sagemaker.list_transform_jobs(StatusEquals="InProgress")["TransformJobSummaries"]
        assert (running, sagemaker.list_models()["Models"]) == ([], []), call


@pytest.mark.parametrize(
    ("source", "given", "said"),
    [
        ("/a/path", {}, "the input"),
        ("s3://b/in", {"instance_type": "ml.m5.xlrage"}, "instance_type"),
        ("s3://b/in", {"serverless_config": '{"MemorySizeInMB": 1024, "MaxConcurrency": 1}'}, "serverless_config"),
    ],
)
def test_a_batch_job_that_cannot_be_is_refused_before_aws_is_asked(
    account: AwsAccount, source: str, given: dict[str, str], said: str
) -> None:
    account.emulator.faults.clear()
    with pytest.raises(WrongUsage, match=said):
        transform(account.target, ONE, source, "s3://b/out", job_options(account, **given))
    assert account.emulator.faults.calls == []
