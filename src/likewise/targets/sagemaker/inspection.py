"""What is at AWS already, looked at without changing anything."""

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
    """An endpoint as it is. config, models: what it stands on; scalings: what autoscaling knows of its variants."""

    name: str
    status: str
    arn: str
    config: str
    variants: tuple[Mapping[str, Any], ...]
    tags: Mapping[str, str]
    said: Mapping[str, Any]
    configured: Mapping[str, Any]

    @property
    def models(self) -> list[str]:
        """Names of the models behind it."""
        return sorted({each["ModelName"] for each in self.variants if "ModelName" in each})


def endpoint(aws: Aws, name: str) -> EndpointDescription | None:
    """The endpoint, None where there is none."""
    said = aws.find("sagemaker", "describe_endpoint", EndpointName=name)
    if said is None:
        return None
    config = said["EndpointConfigName"]
    configured = aws.find("sagemaker", "describe_endpoint_config", EndpointConfigName=config) or {}
    tags = tags_at(aws, configured["EndpointConfigArn"]) if configured else {}
    variants = tuple(configured.get("ProductionVariants", ()))
    return EndpointDescription(
        name, said["EndpointStatus"], said["EndpointArn"], config, variants, tags, said, configured
    )


def tags_at(aws: Aws, arn: str) -> dict[str, str]:
    """All tags of a thing."""
    return as_mapping(aws.pages("sagemaker", "list_tags", "Tags", ResourceArn=arn))


def model_there(aws: Aws, name: str) -> dict[str, Any] | None:
    """The model of this name."""
    return aws.find("sagemaker", "describe_model", ModelName=name)


def ours(aws: Aws, name: str) -> tuple[list[str], list[str]]:
    """Configurations and models that were made for the deployment `name`, also by plans that failed."""
    configs = aws.pages("sagemaker", "list_endpoint_configs", "EndpointConfigs", NameContains=name[:50].rstrip("-"))
    models = aws.pages("sagemaker", "list_models", "Models", NameContains=name[:50].rstrip("-"))
    made = [each["EndpointConfigName"] for each in configs if _made_for(aws, name, each, "EndpointConfig")]
    return made, [each["ModelName"] for each in models if _made_for(aws, name, each, "Model")]


def _made_for(aws: Aws, name: str, each: Mapping[str, Any], kind: str) -> bool:
    return is_derived(name, each[f"{kind}Name"]) and tags_at(aws, each[f"{kind}Arn"]).get(NAME) == name


def scalings(aws: Aws, name: str, variants: list[str], *, needed: bool) -> list[dict[str, Any]]:
    """What autoscaling knows of these variants: requests that would make it again, each with its policies.

    needed: False where it does not matter enough to fail when we may not look.
    """
    ids = [resource_id(name, each) for each in variants]
    if not ids:
        return []
    said = aws.attempt(
        () if needed else ("denied",),
        "application-autoscaling",
        "describe_scalable_targets",
        ServiceNamespace="sagemaker",
        ResourceIds=ids,
    )
    targets = (said or {}).get("ScalableTargets", [])
    return [_again(aws, each) for each in targets]


def _again(aws: Aws, target: Mapping[str, Any]) -> dict[str, Any]:
    resource = {**SCALED, "ResourceId": target["ResourceId"], "ScalableDimension": target["ScalableDimension"]}
    kept = ("PolicyName", "PolicyType", "StepScalingPolicyConfiguration", "TargetTrackingScalingPolicyConfiguration")
    policies = aws.pages("application-autoscaling", "describe_scaling_policies", "ScalingPolicies", **resource)
    return {
        "target": {**resource, "MinCapacity": target["MinCapacity"], "MaxCapacity": target["MaxCapacity"]},
        "policies": [{**resource, **{key: each[key] for key in kept if key in each}} for each in policies],
    }


def account(aws: Aws) -> str:
    """The account's number; TargetUnavailable where nobody is logged in."""
    return str(aws.call("sts", "get_caller_identity")["Account"])


def execution_role(aws: Aws, asked: str | None) -> str:
    """The ARN of the container's role: the one that is named, else the one that asks; DeployFailed."""
    if asked is not None:
        _check_role(aws, asked)
        return asked
    who = str(aws.call("sts", "get_caller_identity")["Arn"])
    assumed = _ASSUMED.fullmatch(who)
    if assumed is None:
        raise _no_role(f"who asks is {who}, which is no role that a container could have")
    said = aws.find("iam", "get_role", RoleName=assumed["role"])
    if said is None:
        raise _no_role(f"IAM has no role {assumed['role']!r}")
    return str(said["Role"]["Arn"])


def _check_role(aws: Aws, asked: str) -> None:
    if not ROLE.fullmatch(asked):
        raise _no_role(f"execution_role_arn is {asked!r}, which is no role's ARN")
    try:
        said = aws.find("iam", "get_role", RoleName=asked.rsplit("/", 1)[-1])
    except LikewiseError:
        return  # who deploys need not be allowed to read IAM; AWS looks at the role itself
    if said is None and asked.split(":")[4] == account(aws):
        raise _no_role(f"IAM has no role {asked!r}")


def _no_role(cause: str) -> LikewiseError:
    return KINDS["role"].error(cause, remedy=KINDS["role"].remedy)


def pinned(aws: Aws, image: str) -> str:
    """An image in ECR by its digest, so that another push under its tag changes nothing; any other as it is named."""
    found = _ECR.fullmatch(image)
    if found is None or found["digest"]:
        return image
    details = _image(aws, found)
    return f"{image.rpartition(':')[0] if found['tag'] else image}@{details[0]['imageDigest']}" if details else image


def image_problem(aws: Aws, image: str) -> str | None:
    """What is wrong with an image that is named, as far as it can be known before it is deployed."""
    found = _ECR.fullmatch(image)
    if found is None:
        return None  # of another registry, which SageMaker reaches through the VPC
    if found["region"] != aws.at.region:
        return f"the image {image} is in {found['region']}, and the endpoint in {aws.at.region}"
    return f"ECR has no image {image}" if _image(aws, found) == [] else None


def _image(aws: Aws, found: re.Match[str]) -> list[dict[str, Any]] | None:
    """What ECR tells of it; None where we may not ask: an image of another account may be pulled by the role alone."""
    which = {"imageDigest": found["digest"]} if found["digest"] else {"imageTag": found["tag"] or "latest"}
    asked = {"registryId": found["account"], "repositoryName": found["repository"], "imageIds": [which]}
    try:
        said = aws.find("ecr", "describe_images", **asked)
    except TargetUnavailable:
        return None
    return [] if said is None else list(said["imageDetails"])


def bucket_problem(aws: Aws, bucket: str) -> str | None:
    """What is wrong with a bucket that is named."""
    try:
        said = aws.find("s3", "head_bucket", Bucket=bucket)
    except LikewiseError as error:
        return f"the bucket {bucket!r} cannot be used: {error.cause}"
    if said is None:
        return f"there is no bucket {bucket!r}"
    headers = said["ResponseMetadata"]["HTTPHeaders"]
    region = said.get("BucketRegion") or headers.get("x-amz-bucket-region")
    if region and region != aws.at.region:
        return f"the bucket {bucket!r} is in {region}, and the endpoint in {aws.at.region}"
    return None


def alarm_problem(aws: Aws, alarms: list[str]) -> str | None:
    """Which of these alarms there is not."""
    there = aws.call("cloudwatch", "describe_alarms", AlarmNames=alarms, AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    known = {each["AlarmName"] for key in ("MetricAlarms", "CompositeAlarms") for each in there.get(key, ())}
    missing = [name for name in alarms if name not in known]
    return f"CloudWatch has no alarm {missing[0]!r}" if missing else None


def required(aws: Aws, name: str) -> EndpointDescription:
    """The endpoint; NotDeployed."""
    found = endpoint(aws, name)
    if found is None:
        raise NotDeployed(
            f"SageMaker has no endpoint {name!r} in {aws.at.region}", remedy="likewise list shows what is"
        )
    return found
