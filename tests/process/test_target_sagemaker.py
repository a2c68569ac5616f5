"""The target `sagemaker` against the emulator: real HTTP requests, and processes instead of containers."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest
from tests.support.aws.account import REGION, SECRET, Account
from tests.support.aws.deployments import ONE, TWO, deployed, planned, run_plan, serving_bundle
from tests.support.aws.faults import Fault

from likewise.bundles.open import open_bundle
from likewise.core.errors import AlreadyDeployed, DeployFailed, LikewiseError, NotDeployed, WrongUsage
from likewise.core.option_fields import coerce
from likewise.core.spec import ModelSpec
from likewise.receipts import Receipts
from likewise.targets.apply import apply
from likewise.targets.sagemaker.registry import tag_of
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions
from likewise.testing.models import upper_bundle

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sagemaker")]
pytest_plugins = ("tests.support.aws.fixtures",)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A model with an existing bundle, for an image or for S3."""
    opened = open_bundle(upper_bundle(tmp_path_factory.mktemp("models") / "one", "1:"))
    return ModelSpec(opened.digest, opened.path, "models:/m/1", trust=True)


def test_a_deployment_has_its_options_tags_and_costs(account: Account) -> None:
    receipt = deployed(account, "three", tags='{"team": "text"}', startup_timeout_s="120", volume_size_gb="20")
    assert receipt.output("costs") == "1 x ml.m5.xlarge, by the hour"
    assert serving_bundle(account, receipt) == "/one:1"
    sagemaker = account.client("sagemaker")
    config = sagemaker.describe_endpoint_config(EndpointConfigName=receipt.output("config"))
    (variant,) = config["ProductionVariants"]
    assert (variant["ContainerStartupHealthCheckTimeoutInSeconds"], variant["VolumeSizeInGB"]) == (120, 20)
    tags = {each["Key"]: each["Value"] for each in sagemaker.list_tags(ResourceArn=config["EndpointConfigArn"])["Tags"]}
    assert (tags["likewise:bundle"], tags["team"]) == (ONE.digest, "text")
    status = account.target.status(receipt)
    assert (status.state, status.url, status.bundle) == ("ready", receipt.output("url"), ONE.digest)
    assert status.details["costs"] == receipt.output("costs")
    figures = account.target.traffic(receipt)
    assert (figures.replicas, figures.requests, figures.p50_ms, figures.memory_bytes) == (1, None, None, None)
    dimensions = [{"Name": "EndpointName", "Value": "three"}, {"Name": "VariantName", "Value": variant["VariantName"]}]
    invocations = {"MetricName": "Invocations", "Value": 7.0, "Unit": "Count", "Dimensions": dimensions}
    account.client("cloudwatch").put_metric_data(Namespace="AWS/SageMaker", MetricData=[invocations])
    figures = account.target.traffic(receipt)
    assert (figures.requests, figures.errors) == (7, None)
    assert list(account.target.logs(receipt, 1, False)) == list(account.target.logs(receipt, 100, False))[-1:]


def test_deployments_of_other_users_are_found_with_their_options_and_can_be_updated(account: Account) -> None:
    receipt = deployed(account, "theirs", instance_count="2", instance_type="ml.c5.large", env='{"A": "b"}')
    (discovered,) = account.target.found()
    assert (discovered.name, discovered.model.digest, discovered.model.trust) == ("theirs", ONE.digest, True)
    names = ("instance_count", "instance_type", "env", "execution_role_arn", "variant_name")
    assert {key: discovered.options[key] for key in names} == {key: receipt.options[key] for key in names}
    changed = run_plan(account, "update", "theirs", TWO, discovered, image_url="two:1")
    assert changed is not None
    assert serving_bundle(account, changed) == "/two:1"


def test_an_endpoint_without_likewise_tags_is_not_changed(account: Account) -> None:
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


def test_a_deleted_deployment_is_gone(account: Account) -> None:
    receipt = deployed(account, "short")
    run_plan(account, "delete", "short", None, receipt)
    assert account.resources() == []
    assert account.target.status(receipt).state == "gone"
    with pytest.raises(NotDeployed):
        account.target.predict(receipt, b"{}", "application/json")
    with pytest.raises(NotDeployed):
        planned(account, "update", "short", TWO, receipt)
    plan, _ = planned(account, "delete", "short", None, receipt)  # the endpoint is gone: this removes the receipt
    assert [step.id for step in plan.steps] == ["remove_endpoint", "remove_configs", "remove_models"]


def test_a_deletion_removes_resources_left_by_earlier_plans(account: Account) -> None:
    receipt = deployed(account, "leftover")
    account.emulator.faults.add(Fault("throttle", operation="DeleteModel"))
    changed = run_plan(account, "update", "leftover", TWO, receipt, image_url="two:1")
    assert changed is not None
    assert changed.output("left") == [receipt.output("model")]
    run_plan(account, "delete", "leftover", None, changed)
    assert account.resources() == []


def test_an_update_removes_the_replaced_version_unless_archived(account: Account) -> None:
    first = deployed(account, "kept")
    second = run_plan(account, "update", "kept", TWO, first, image_url="two:1", archive="true")
    assert second is not None
    assert {first.output("model"), first.output("config")} <= set(account.resources())
    third = run_plan(account, "update", "kept", ONE, second, image_url="one:1", archive="false")
    assert third is not None
    assert serving_bundle(account, third) == "/one:1"
    assert third.output("model") == first.output("model")  # the same name, so the existing model was reused
    assert second.output("model") not in account.resources()


def test_another_instance_count_creates_a_configuration_with_the_same_model(account: Account) -> None:
    first = deployed(account, "wider")
    second = run_plan(account, "update", "wider", ONE, first, instance_count="3")
    assert second is not None
    assert second.output("model") == first.output("model")
    assert second.output("config") != first.output("config")
    assert account.target.status(second).details["instances"] == {"AllTraffic": 3}
    again = run_plan(account, "update", "wider", ONE, second)  # nothing to change
    assert again is not None
    assert again.output("config") == second.output("config")


def test_a_canary_with_alarms_is_passed_to_sagemaker(account: Account) -> None:
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
    run_plan(account, "update", "canary", TWO, receipt, **given)
    config = account.client("sagemaker").describe_endpoint(EndpointName="canary")["LastDeploymentConfig"]
    routing = config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert (routing["Type"], routing["CanarySize"]["Value"]) == ("CANARY", 20)
    assert config["AutoRollbackConfiguration"]["Alarms"] == [{"AlarmName": "errors"}]
    with pytest.raises(DeployFailed, match="no alarm 'latency'"):
        planned(account, "update", "canary", TWO, receipt, rollback_alarms='["errors", "latency"]')


def test_an_update_can_add_a_variant_to_the_existing_one(account: Account) -> None:
    first = deployed(account, "second")
    second = run_plan(account, "update", "second", TWO, first, mode="add", variant_name="next", image_url="two:1")
    assert second is not None
    status = account.target.status(second)
    assert status.details["instances"] == {"AllTraffic": 1, "next": 1}
    assert {first.output("model"), second.output("model")} <= set(account.resources())
    run_plan(account, "delete", "second", None, second)
    assert account.resources() == []


def test_autoscaling_is_created_restored_after_an_update_and_removed(account: Account) -> None:
    scaling = account.client("application-autoscaling")

    def scaled() -> list[tuple[int, int]]:
        targets = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        return [(each["MinCapacity"], each["MaxCapacity"]) for each in targets]

    first = deployed(account, "scaled", max_instances="4", scale_in_cooldown_s="600")
    policy = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"][0]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["ScaleInCooldown"] == 600
    assert scaled() == [(1, 4)]
    with pytest.raises(DeployFailed):
        run_plan(account, "update", "scaled", TWO, first, image_url="two:1", env='{"HOW": "exits"}')
    assert (scaled(), serving_bundle(account, first)) == ([(1, 4)], "/one:1")  # restored by the rollback
    second = run_plan(account, "update", "scaled", TWO, first, image_url="two:1", max_instances="6")
    assert scaled() == [(1, 6)]
    run_plan(account, "delete", "scaled", None, second)
    assert scaled() == []


def test_without_synchronous_the_deployment_does_not_wait(account: Account) -> None:
    receipt = deployed(account, "later", synchronous="false")
    assert account.target.status(receipt).state in ("starting", "ready")
    account.client("sagemaker").get_waiter("endpoint_in_service").wait(EndpointName="later", WaiterConfig={"Delay": 1})
    with pytest.raises(WrongUsage, match="synchronous=false"):
        planned(account, "update", "later", TWO, receipt)


def test_progress_is_reported_during_the_wait(account: Account) -> None:
    plan, target = planned(account, "create", "progress", ONE)
    lines: list[str] = []
    target.progress = lines.append
    apply(plan, target, Receipts())
    target.progress = lambda _: None
    assert lines[-1].startswith("progress: InService (")


def test_a_plan_contains_every_request_and_no_secrets(account: Account) -> None:
    plan, _ = planned(account, "create", "open", ONE, env='{"A": "$(rm -rf /)"}')
    text = json.dumps(plan.as_dict())
    assert [step.id for step in plan.steps] == ["model", "config", "endpoint", "wait"]
    assert plan.steps[0].params["request"]["PrimaryContainer"]["Environment"]["A"] == "$(rm -rf /)"
    assert SECRET not in text
    assert "AKIA" not in text
    assert planned(account, "create", "open", ONE, env='{"A": "$(rm -rf /)"}')[0].key == plan.key


def test_a_failed_image_build_leaves_no_repository(account: Account, bundle: ModelSpec) -> None:
    with pytest.raises(LikewiseError) as failed:
        deployed(account, "unbuilt", bundle, image_url=None, base_image="/nowhere/base.tar")
    assert failed.value.remedy
    assert account.client("ecr").describe_repositories()["repositories"] == []


def test_an_image_in_ecr_is_not_built_or_pushed_again(account: Account) -> None:
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
    env = '{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}'
    traced, _ = planned(account, "create", "there", ONE, image_url=None, env=env)  # needs an image with the exporter
    assert traced.steps[1].params["telemetry"] is True
    assert other.steps[1].params["telemetry"] is False
    ecr.delete_repository(repositoryName="likewise", force=True)


def test_a_bundle_in_s3_is_uploaded_once_and_removed(account: Account, bundle: ModelSpec) -> None:
    receipt = deployed(account, "archived", bundle, bundle_in="s3")
    (key,) = account.objects()
    assert key == f"likewise/archived/{bundle.digest.removeprefix('sha256:')}/model.tar.gz"
    assert receipt.output("data") == f"s3://sagemaker-{REGION}-123456789012/{key}"
    account.emulator.faults.clear()
    wider = run_plan(account, "update", "archived", bundle, receipt, instance_count="2")
    assert not any(call.service == "s3" and call.operation == "PUT" for call in account.emulator.faults.calls)
    run_plan(account, "delete", "archived", None, wider)
    assert account.resources() == []


def test_a_failed_deployment_leaves_no_bundle_in_s3(account: Account, bundle: ModelSpec) -> None:
    with pytest.raises(DeployFailed):
        deployed(account, "unsent", bundle, bundle_in="s3", env='{"HOW": "exits"}')
    assert account.objects() == []
