"""Validation, lists and tags of the emulated SageMaker, other services, and injected faults."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import BotoCoreError
from hypothesis import given
from hypothesis import strategies as st
from tests.support.aws.api import INSTANCE, LIVE, Api, refused
from tests.support.aws.faults import Call, Fault

from likewise.targets.sagemaker.emulator.shapes import problems
from likewise.targets.sagemaker.patterns import compiled
from likewise.targets.sagemaker.shapes import service_model

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sagemaker")]
pytest_plugins = ("tests.support.aws.fixtures",)


def test_invalid_requests_are_rejected_with_awss_messages(api: Api) -> None:
    bare = api.client("sagemaker", parameter_validation=False)
    with refused("Value 'a_b' at 'modelName' failed to satisfy constraint: Member must satisfy regular expression"):
        bare.create_model(ModelName="a_b")
    with refused("length less than or equal to 63"):
        bare.create_model(ModelName="a" * 64)
    with refused("Value null at 'endpointConfigName' failed to satisfy constraint: Member must not be null"):
        bare.create_endpoint(EndpointName="a")
    with refused("satisfy enum value set"):
        variant = {"VariantName": "v", "ModelName": LIVE, "InstanceType": "ml.m99.huge", "InitialInstanceCount": 1}
        bare.create_endpoint_config(EndpointConfigName="x", ProductionVariants=[variant])
    with refused("productionVariants.1.member.containerStartupHealthCheckTimeoutInSeconds"):
        variant = {
            "VariantName": "v",
            "ModelName": LIVE,
            **INSTANCE,
            "ContainerStartupHealthCheckTimeoutInSeconds": 1,
        }
        bare.create_endpoint_config(EndpointConfigName="x", ProductionVariants=[variant])


def test_unknown_members_and_wrong_types_are_rejected(api: Api) -> None:
    assert "Unknown parameter" in str(problem_of("CreateModel", ModelName="a", Modell="b"))
    assert "Invalid type" in str(problem_of("CreateModel", ModelName=1))
    assert problem_of("CreateModel", ModelName="a") is None


def problem_of(operation: str, **params: Any) -> str | None:
    return problems(params, service_model("sagemaker").operation_model(operation).input_shape)


def test_every_pattern_of_the_emulated_operations_can_be_compiled() -> None:
    seen: set[str] = set()

    def walk(shape: Any, patterns: set[str]) -> None:
        if shape.name in seen:
            return
        seen.add(shape.name)
        patterns.update({shape.metadata["pattern"]} if "pattern" in shape.metadata else ())
        for part in (*getattr(shape, "members", {}).values(), *(getattr(shape, each, None) for each in PARTS)):
            if part is not None:
                walk(part, patterns)

    patterns: set[str] = set()
    for name, operations in EMULATED.items():
        for operation in operations:
            walk(service_model(name).operation_model(operation).input_shape, patterns)
    assert len(patterns) > 20
    assert {pattern for pattern in patterns if compiled(pattern) is None} == set()


PARTS = ("member", "key", "value")
EMULATED = {
    "sagemaker": (
        "CreateModel",
        "CreateEndpointConfig",
        "CreateEndpoint",
        "UpdateEndpoint",
        "CreateTransformJob",
        "AddTags",
    ),
    "sagemaker-runtime": ("InvokeEndpoint", "InvokeEndpointAsync"),
}


@given(st.text(max_size=70))
def test_endpoint_names_must_match_the_pattern(name: str) -> None:
    plain = all(each.isascii() and (each.isalnum() or each == "-") for each in name)
    good = 0 < len(name) <= 63 and plain and name[0] != "-" and name[-1] != "-"
    assert (problem_of("DescribeEndpoint", EndpointName=name) is None) == good


def test_duplicate_and_missing_resources_are_rejected(api: Api) -> None:
    sagemaker = api.client("sagemaker")
    with refused("Cannot create already existing model"):
        api.model(LIVE)
    with refused("Cannot create already existing endpoint configuration"):
        api.config(LIVE)
    with refused('Cannot create already existing endpoint "'):
        sagemaker.create_endpoint(EndpointName=LIVE, EndpointConfigName=LIVE)
    with refused("Could not find endpoint configuration"):
        sagemaker.create_endpoint(EndpointName="x", EndpointConfigName="nowhere")
    with refused("Could not find model"):
        api.config("x", "nowhere")
    with refused("ResourceNotFound.*Could not find requested job"):
        sagemaker.describe_transform_job(TransformJobName="nowhere")
    with refused("UnknownOperationException.*does not support ListClusters"):
        sagemaker.list_clusters()


def test_tags_and_lists(api: Api) -> None:
    sagemaker = api.client("sagemaker")
    for number in range(3):
        tags = [{"Key": "likewise:bundle", "Value": f"sha256:{number}"}]
        sagemaker.create_model(
            ModelName=f"listed-{number}",
            ExecutionRoleArn=api.role,
            PrimaryContainer={"Image": "upper:1"},
            Tags=tags,
        )
    arn = sagemaker.describe_model(ModelName="listed-1")["ModelArn"]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "likewise:bundle", "Value": "sha256:1"}]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "a"}])
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["likewise:bundle"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "a"}]
    pages = sagemaker.get_paginator("list_models").paginate(
        NameContains="listed", SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 2}
    )
    assert [[each["ModelName"] for each in page["Models"]] for page in pages] == [
        ["listed-0", "listed-1"],
        ["listed-2"],
    ]
    endpoints = sagemaker.list_endpoints(StatusEquals="InService")["Endpoints"]
    assert [each["EndpointName"] for each in endpoints] == [LIVE]
    assert LIVE in [each["EndpointConfigName"] for each in sagemaker.list_endpoint_configs()["EndpointConfigs"]]


def test_lineage_and_monitoring_are_empty(api: Api) -> None:
    sagemaker = api.client("sagemaker")
    assert (
        sagemaker.list_contexts(SourceUri="arn:aws:sagemaker:us-east-1:123456789012:endpoint/a")["ContextSummaries"]
        == []
    )
    assert sagemaker.list_monitoring_schedules(EndpointName=LIVE)["MonitoringScheduleSummaries"] == []


def test_autoscaling_is_stored(api: Api) -> None:
    scaling = api.client("application-autoscaling")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/dl-sentiment-model/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=2)
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    scaling.put_scaling_policy(
        **target,
        PolicyName="p",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={"TargetValue": 70.0, "PredefinedMetricSpecification": metric},
    )
    policies = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert [each["PolicyName"] for each in policies] == ["p"]
    scaling.delete_scaling_policy(**target, PolicyName="p")
    scaling.deregister_scalable_target(**target)
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []


def test_all_services_have_one_address(api: Api) -> None:
    assert api.client("sts").get_caller_identity()["Account"] == "123456789012"
    repository = api.client("ecr").create_repository(repositoryName="team/model")["repository"]
    assert repository["repositoryUri"].endswith("/team/model")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("throttle", "ThrottlingException"),
        ("expired-token", "ExpiredTokenException"),
        ("quota", "ResourceLimitExceeded"),
    ],
)
def test_faults_are_reported_with_the_services_error_codes(api: Api, kind: Any, code: str) -> None:
    api.emulator.faults.add(Fault(kind, nth=2, operation="ListModels"))
    sagemaker = api.client("sagemaker")
    sagemaker.list_models()
    with refused(code):
        sagemaker.list_models()
    sagemaker.list_models()


@pytest.mark.parametrize(
    ("service_name", "send", "codes"),
    [
        ("s3", lambda client: client.list_buckets(), ("SlowDown", "ExpiredToken")),
        ("sts", lambda client: client.get_caller_identity(), ("Throttling", "ExpiredToken")),
        ("monitoring", lambda client: client.describe_alarms(), ("ThrottlingException", "ExpiredTokenException")),
        ("ecr", lambda client: client.describe_repositories(), ("ThrottlingException", "ExpiredTokenException")),
    ],
)
def test_faults_of_the_other_services(api: Api, service_name: str, send: Any, codes: tuple[str, str]) -> None:
    client = api.client({"monitoring": "cloudwatch"}.get(service_name, service_name))
    api.emulator.faults.add(Fault("throttle", service=service_name))
    with refused(codes[0]):
        send(client)
    api.emulator.faults.add(Fault("expired-token", service=service_name, times=None))
    for _ in range(2):
        with refused(codes[1]):
            send(client)


def test_a_connection_is_closed_before_or_after_the_operation(api: Api) -> None:
    sagemaker = api.client("sagemaker")
    api.emulator.faults.clear()
    for kind, name in (("cut", "cut-before"), ("cut-after", "cut-later")):
        api.emulator.faults.add(Fault(kind, operation="CreateModel"))  # type: ignore[arg-type]
        with pytest.raises(BotoCoreError):
            api.model(name)
        api.emulator.faults.clear()
    with refused("Could not find model"):
        sagemaker.describe_model(ModelName="cut-before")
    assert sagemaker.describe_model(ModelName="cut-later")["ModelName"] == "cut-later"
    assert api.emulator.faults.calls == [Call("sagemaker", "DescribeModel"), Call("sagemaker", "DescribeModel")]
