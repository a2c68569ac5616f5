"""Read-only queries of existing AWS resources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from likewise.core.errors import LikewiseError, NotDeployed, TargetUnavailable
from likewise.targets.sagemaker.address import ROLE
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.failures import KINDS
from likewise.targets.sagemaker.names import NAME, as_mapping, is_derived
from likewise.targets.sagemaker.requests import SCALED, resource_id

SETTLED = ("InService", "Failed", "OutOfService", "UpdateRollbackFailed")
_ASSUMED = re.compile(r"arn:(?P<partition>aws[a-z-]*):sts::(?P<account>\d{12}):assumed-role/(?P<role>[^/]+)/.*")
_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.[a-z.]+/(?P<repository>[^:@]+)"
    r"(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class EndpointDescription:
    """An existing endpoint.

    config: the name of its configuration. variants: the production variants in that. tags: those of the configuration.
    description, config_description: the responses of DescribeEndpoint and DescribeEndpointConfig.
    """

    name: str
    status: str
    arn: str
    config: str
    variants: tuple[Mapping[str, Any], ...]
    tags: Mapping[str, str]
    description: Mapping[str, Any]
    config_description: Mapping[str, Any]

    @property
    def models(self) -> list[str]:
        """The names of the variants' models, sorted."""
        return sorted({each["ModelName"] for each in self.variants if "ModelName" in each})


def endpoint(aws: Aws, name: str) -> EndpointDescription | None:
    """The endpoint, None if it does not exist."""
    described = aws.find("sagemaker", "describe_endpoint", EndpointName=name)
    if described is None:
        return None
    config = described["EndpointConfigName"]
    described_config = aws.find("sagemaker", "describe_endpoint_config", EndpointConfigName=config) or {}
    tags = tags_at(aws, described_config["EndpointConfigArn"]) if described_config else {}
    variants = tuple(described_config.get("ProductionVariants", ()))
    status, arn = described["EndpointStatus"], described["EndpointArn"]
    return EndpointDescription(name, status, arn, config, variants, tags, described, described_config)


def tags_at(aws: Aws, arn: str) -> dict[str, str]:
    """All tags of the SageMaker resource with this ARN."""
    return as_mapping(aws.pages("sagemaker", "list_tags", "Tags", ResourceArn=arn))


def model(aws: Aws, name: str) -> dict[str, Any] | None:
    """SageMaker's description of the model, None if it does not exist."""
    return aws.find("sagemaker", "describe_model", ModelName=name)


def resources_of(aws: Aws, name: str) -> tuple[list[str], list[str]]:
    """Names of the configurations and of the models created for the deployment `name`, also by plans that failed."""
    configs = aws.pages("sagemaker", "list_endpoint_configs", "EndpointConfigs", NameContains=name[:50].rstrip("-"))
    models = aws.pages("sagemaker", "list_models", "Models", NameContains=name[:50].rstrip("-"))
    config_names = [each["EndpointConfigName"] for each in configs if _belongs_to(aws, name, each, "EndpointConfig")]
    return config_names, [each["ModelName"] for each in models if _belongs_to(aws, name, each, "Model")]


def _belongs_to(aws: Aws, name: str, each: Mapping[str, Any], kind: str) -> bool:
    return is_derived(name, each[f"{kind}Name"]) and tags_at(aws, each[f"{kind}Arn"]).get(NAME) == name


def autoscaling(aws: Aws, name: str, variants: list[str], *, needed: bool) -> list[dict[str, Any]]:
    """The autoscaling of these variants, as requests that would register it again, each with its policies.

    needed: if False, missing permission to read it is ignored, and the result is empty.
    """
    ids = [resource_id(name, each) for each in variants]
    if not ids:
        return []
    response = aws.attempt(
        () if needed else ("denied",),
        "application-autoscaling",
        "describe_scalable_targets",
        ServiceNamespace="sagemaker",
        ResourceIds=ids,
    )
    targets = (response or {}).get("ScalableTargets", [])
    return [_scaling_requests(aws, each) for each in targets]


def _scaling_requests(aws: Aws, target: Mapping[str, Any]) -> dict[str, Any]:
    resource = {**SCALED, "ResourceId": target["ResourceId"], "ScalableDimension": target["ScalableDimension"]}
    copied = ("PolicyName", "PolicyType", "StepScalingPolicyConfiguration", "TargetTrackingScalingPolicyConfiguration")
    policies = aws.pages("application-autoscaling", "describe_scaling_policies", "ScalingPolicies", **resource)
    return {
        "target": {**resource, "MinCapacity": target["MinCapacity"], "MaxCapacity": target["MaxCapacity"]},
        "policies": [{**resource, **{key: each[key] for key in copied if key in each}} for each in policies],
    }


def account(aws: Aws) -> str:
    """The account's number; TargetUnavailable without valid credentials."""
    return str(aws.call("sts", "get_caller_identity")["Account"])


def execution_role(aws: Aws, arn: str | None) -> str:
    """The ARN of the container's role; arn: None for the role that deploys.  DeployFailed if it cannot be used."""
    if arn is not None:
        _check_role(aws, arn)
        return arn
    caller = str(aws.call("sts", "get_caller_identity")["Arn"])
    assumed = _ASSUMED.fullmatch(caller)
    if assumed is None:
        raise _invalid_role(f"the caller is {caller}, not a role, and a container needs a role")
    response = aws.find("iam", "get_role", RoleName=assumed["role"])
    if response is None:
        raise _invalid_role(f"IAM has no role {assumed['role']!r}")
    return str(response["Role"]["Arn"])


def _check_role(aws: Aws, arn: str) -> None:
    if not ROLE.fullmatch(arn):
        raise _invalid_role(f"execution_role_arn is {arn!r}, which is not a valid role ARN")
    try:
        response = aws.find("iam", "get_role", RoleName=arn.rsplit("/", 1)[-1])
    except LikewiseError:
        return  # deploying does not require permission to read IAM; AWS checks the role itself
    if response is None and arn.split(":")[4] == account(aws):
        raise _invalid_role(f"IAM has no role {arn!r}")


def _invalid_role(cause: str) -> LikewiseError:
    return KINDS["role"].error(cause, remedy=KINDS["role"].remedy)


def pinned(aws: Aws, image: str) -> str:
    """An image in ECR by its digest, so that a later push to its tag has no effect; any other image unchanged."""
    match = _ECR.fullmatch(image)
    if match is None or match["digest"]:
        return image
    details = _image_details(aws, match)
    return f"{image.rpartition(':')[0] if match['tag'] else image}@{details[0]['imageDigest']}" if details else image


def image_problem(aws: Aws, image: str) -> str | None:
    """Why the image cannot be used, None if no problem is known before it is deployed."""
    match = _ECR.fullmatch(image)
    if match is None:
        return None  # in another registry, which SageMaker accesses through the VPC
    if match["region"] != aws.at.region:
        return f"the image {image} is in {match['region']}, and the endpoint in {aws.at.region}"
    return f"ECR has no image {image}" if _image_details(aws, match) == [] else None


def _image_details(aws: Aws, match: re.Match[str]) -> list[dict[str, Any]] | None:
    """ECR's details of an image, empty if it does not exist; None without permission.

    match: of _ECR.  In another account's repository, the execution role may be allowed to pull what the caller cannot
    describe.
    """
    which = {"imageDigest": match["digest"]} if match["digest"] else {"imageTag": match["tag"] or "latest"}
    request = {"registryId": match["account"], "repositoryName": match["repository"], "imageIds": [which]}
    try:
        response = aws.find("ecr", "describe_images", **request)
    except TargetUnavailable:
        return None
    return [] if response is None else list(response["imageDetails"])


def bucket_problem(aws: Aws, bucket: str) -> str | None:
    """Why the bucket cannot be used, None if it can."""
    try:
        response = aws.find("s3", "head_bucket", Bucket=bucket)
    except LikewiseError as error:
        return f"the bucket {bucket!r} cannot be used: {error.cause}"
    if response is None:
        return f"the bucket {bucket!r} does not exist"
    headers = response["ResponseMetadata"]["HTTPHeaders"]
    region = response.get("BucketRegion") or headers.get("x-amz-bucket-region")
    if region and region != aws.at.region:
        return f"the bucket {bucket!r} is in {region}, and the endpoint in {aws.at.region}"
    return None


def alarm_problem(aws: Aws, alarms: list[str]) -> str | None:
    """A message for the first of the alarms that does not exist, None if all exist."""
    response = aws.call(
        "cloudwatch", "describe_alarms", AlarmNames=alarms, AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    known = {each["AlarmName"] for key in ("MetricAlarms", "CompositeAlarms") for each in response.get(key, ())}
    missing = [name for name in alarms if name not in known]
    return f"CloudWatch has no alarm {missing[0]!r}" if missing else None


def require_endpoint(aws: Aws, name: str) -> EndpointDescription:
    """The endpoint; NotDeployed if it does not exist."""
    existing = endpoint(aws, name)
    if existing is None:
        raise NotDeployed(f"SageMaker has no endpoint {name!r} in {aws.at.region}", remedy=KINDS["missing"].remedy)
    return existing
