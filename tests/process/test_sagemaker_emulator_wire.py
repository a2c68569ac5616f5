"""What the local SageMaker refuses, lists and keeps, as the services say it; faults on the wire."""

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


def test_requests_are_checked_as_aws_checks_them(api: Api) -> None:
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


def test_members_and_types_that_the_model_does_not_have(api: Api) -> None:
    assert "Unknown parameter" in str(wrong("CreateModel", ModelName="a", Modell="b"))
    assert "Invalid type" in str(wrong("CreateModel", ModelName=1))
    assert wrong("CreateModel", ModelName="a") is None


def wrong(operation: str, **params: Any) -> str | None:
    return problems(params, service_model("sagemaker").operation_model(operation).input_shape)


def test_every_pattern_of_the_operations_that_are_rehearsed_is_held() -> None:
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
    for name, operations in REHEARSED.items():
        for operation in operations:
            walk(service_model(name).operation_model(operation).input_shape, patterns)
    assert len(patterns) > 20
    assert {pattern for pattern in patterns if compiled(pattern) is None} == set()


PARTS = ("member", "key", "value")
REHEARSED = {
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
def test_names_are_held_to_their_pattern(name: str) -> None:
    plain = all(each.isascii() and (each.isalnum() or each == "-") for each in name)
    good = 0 < len(name) <= 63 and plain and name[0] != "-" and name[-1] != "-"
    assert (wrong("DescribeEndpoint", EndpointName=name) is None) == good


def test_what_is_there_twice_and_what_is_not(api: Api) -> None:
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
    with refused("UnknownOperationException.*does not know ListClusters"):
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


def test_autoscaling_is_kept(api: Api) -> None:
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
    kept = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert [each["PolicyName"] for each in kept] == ["p"]
    scaling.delete_scaling_policy(**target, PolicyName="p")
    scaling.deregister_scalable_target(**target)
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []


def test_one_address_for_every_service(api: Api) -> None:
    assert api.client("sts").get_caller_identity()["Account"] == "123456789012"
    made = api.client("ecr").create_repository(repositoryName="team/model")["repository"]
    assert made["repositoryUri"].endswith("/team/model")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("throttle", "ThrottlingException"),
        ("expired-token", "ExpiredTokenException"),
        ("quota", "ResourceLimitExceeded"),
    ],
)
def test_faults_as_the_service_says_them(api: Api, kind: Any, code: str) -> None:
    api.emulator.faults.add(Fault(kind, nth=2, operation="ListModels"))
    sagemaker = api.client("sagemaker")
    sagemaker.list_models()
    with refused(code):
        sagemaker.list_models()
    sagemaker.list_models()


@pytest.mark.parametrize(
    ("service_name", "ask", "codes"),
    [
        ("s3", lambda client: client.list_buckets(), ("SlowDown", "ExpiredToken")),
        ("sts", lambda client: client.get_caller_identity(), ("Throttling", "ExpiredToken")),
        ("monitoring", lambda client: client.describe_alarms(), ("ThrottlingException", "ExpiredTokenException")),
        ("ecr", lambda client: client.describe_repositories(), ("ThrottlingException", "ExpiredTokenException")),
    ],
)
def test_faults_of_the_other_services(api: Api, service_name: str, ask: Any, codes: tuple[str, str]) -> None:
    client = api.client({"monitoring": "cloudwatch"}.get(service_name, service_name))
    api.emulator.faults.add(Fault("throttle", service=service_name))
    with refused(codes[0]):
        ask(client)
    api.emulator.faults.add(Fault("expired-token", service=service_name, times=None))
    for _ in range(2):
        with refused(codes[1]):
            ask(client)


def test_a_connection_is_cut_before_or_after(api: Api) -> None:
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
