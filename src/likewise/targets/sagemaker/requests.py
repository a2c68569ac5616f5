"""What AWS is asked for, as data: each operation's parameters from the options, and which option each came from.

A path into a request is `A.B` for the member B of A, without list positions; its option's name holds for all below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from likewise.targets.base import JsonValue
from likewise.targets.sagemaker.names import Tags
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions

Request = dict[str, Any]
Paths = Mapping[str, str]
"""Paths into a request, or into what AWS tells, and the option that each has its value from."""

SCALED = {"ServiceNamespace": "sagemaker", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}
POLICY = "likewise"

MODEL: Paths = {
    "ExecutionRoleArn": "execution_role_arn",
    "VpcConfig": "vpc_config",
    "EnableNetworkIsolation": "network_isolation",
}
VARIANT: Paths = {
    "VariantName": "variant_name",
    "InstanceType": "instance_type",
    "InitialInstanceCount": "instance_count",
    "ServerlessConfig": "serverless_config",
    "VolumeSizeInGB": "volume_size_gb",
    "ModelDataDownloadTimeoutInSeconds": "model_download_timeout_s",
    "ContainerStartupHealthCheckTimeoutInSeconds": "startup_timeout_s",
    "InferenceAmiVersion": "inference_ami_version",
    "RoutingConfig.RoutingStrategy": "routing_strategy",
}
CONFIG: Paths = {
    "DataCaptureConfig": "data_capture_config",
    "AsyncInferenceConfig": "async_inference_config",
    "KmsKeyId": "kms_key_id",
}
_ROLLING, _BLUE_GREEN = "RollingUpdatePolicy", "BlueGreenUpdatePolicy"
_ROUTING = f"{_BLUE_GREEN}.TrafficRoutingConfiguration"
_DEPLOYMENT: Paths = {
    f"{_ROUTING}.WaitIntervalInSeconds": "traffic_wait_s",
    _ROUTING: "traffic_percent",
    f"{_BLUE_GREEN}.TerminationWaitInSeconds": "termination_wait_s",
    f"{_BLUE_GREEN}.MaximumExecutionTimeoutInSeconds": "update_timeout_s",
    f"{_ROLLING}.WaitIntervalInSeconds": "traffic_wait_s",
    f"{_ROLLING}.MaximumBatchSize": "traffic_percent",
    f"{_ROLLING}.MaximumExecutionTimeoutInSeconds": "update_timeout_s",
    "AutoRollbackConfiguration": "rollback_alarms",
}
_METRIC = "SageMakerVariantInvocationsPerInstance"
_TRACKING = "TargetTrackingScalingPolicyConfiguration"
_SCALING: Paths = {
    f"{_TRACKING}.TargetValue": "invocations_per_instance",
    f"{_TRACKING}.ScaleInCooldown": "scale_in_cooldown_s",
    f"{_TRACKING}.ScaleOutCooldown": "scale_out_cooldown_s",
}
ORIGINS: dict[str, Paths] = {
    "CreateModel": {
        **MODEL,
        "PrimaryContainer.Image": "image_url",
        "PrimaryContainer.ModelDataUrl": "bucket",
        "PrimaryContainer.Environment": "env",
        "Tags": "tags",
    },
    "CreateEndpointConfig": {
        **{f"ProductionVariants.{path}": option for path, option in VARIANT.items()},
        "ProductionVariants.InitialVariantWeight": "variant_weights",
        **CONFIG,
        "Tags": "tags",
    },
    "CreateEndpoint": {"EndpointName": "NAME", "Tags": "tags"},
    "UpdateEndpoint": {
        "EndpointName": "NAME",
        **{f"DeploymentConfig.{path}": option for path, option in _DEPLOYMENT.items()},
        "DeploymentConfig": "deployment_config",
    },
    "RegisterScalableTarget": {"MinCapacity": "min_instances", "MaxCapacity": "max_instances"},
    "PutScalingPolicy": {**_SCALING, _TRACKING: "scaling_policy"},
}
_WHOLE = {"UpdateEndpoint": "deployment_config", "PutScalingPolicy": "scaling_policy"}
"""Options that hold a part of a request as AWS has it, in the place of others."""


def origins(options: SageMakerOptions, operation: str) -> Paths:
    """The option of each path into the operation's request."""
    known, whole = ORIGINS[operation], _WHOLE.get(operation)
    if whole is None or getattr(options, whole) is None:
        return known
    return {path: option for path, option in known.items() if "." not in path}


def built(values: Mapping[str, Any]) -> Request:
    """The request with these values at these paths; what is None is left out."""
    request: Request = {}
    for path, value in values.items():
        *outer, last = path.split(".")
        if value is not None:
            holder = request
            for name in outer:
                holder = holder.setdefault(name, {})
            holder[last] = value
    return request


def chosen(options: object, paths: Paths) -> dict[str, Any]:
    """What the options have for each path."""
    return {path: _unwrapped(getattr(options, option), path) for path, option in paths.items()}


def model_request(
    options: SageMakerOptions,
    name: str,
    role: str,
    image: JsonValue,
    data: JsonValue,
    env: Mapping[str, str],
    tags: Tags,
) -> Request:
    """CreateModel's. image: as AWS takes it, or a reference to an earlier step's output. data: None for none."""
    container = {"Image": image, "ModelDataUrl": data, "Environment": dict(env)}
    asked = {"ModelName": name, **chosen(options, MODEL), "ExecutionRoleArn": role, "Tags": tags}
    return built({**asked, "PrimaryContainer": built(container)})


def variant(options: SageMakerOptions, model: str, weight: float) -> Request:
    """The production variant that the options describe."""
    paths = VARIANT
    if options.serverless_config is not None:
        paths = {path: VARIANT[path] for path in ("VariantName", "ServerlessConfig")}
    return built({"ModelName": model, "InitialVariantWeight": weight, **chosen(options, paths)})


def variants(options: SageMakerOptions, model: str, standing: Sequence[Mapping[str, Any]]) -> list[Request]:
    """All of them after the plan. standing: those that are there and stay, which `mode=add` is told of."""
    same = next((each for each in standing if each["VariantName"] == options.variant_name), None)
    weight = same.get("InitialVariantWeight", 1.0) if same else 0.0 if standing else 1.0
    others = [dict(each) for each in standing if each is not same]
    weights = options.variant_weights or {}
    found = [*others, variant(options, model, weight)]
    return [
        {**each, "InitialVariantWeight": weights.get(each["VariantName"], each["InitialVariantWeight"])}
        for each in found
    ]


def config_request(options: SageMakerOptions, name: str, among: Sequence[Request], tags: Tags) -> Request:
    """CreateEndpointConfig's."""
    own = {"EndpointConfigName": name, "ProductionVariants": list(among), "Tags": tags}
    return built({**own, **chosen(options, CONFIG)})


def create_request(name: str, config: str, tags: Tags) -> Request:
    """CreateEndpoint's."""
    return {"EndpointName": name, "EndpointConfigName": config, "Tags": tags}


def update_request(options: SageMakerOptions, name: str, config: str, *, scaled: bool) -> Request:
    """UpdateEndpoint's. scaled: its instances are as many as autoscaling has made them, and stay so."""
    kept: Request = {}
    if scaled and options.max_instances is not None:
        not_kept = [{"VariantPropertyType": each} for each in ("DesiredWeight", "DataCaptureConfig")]
        kept = {"RetainAllVariantProperties": True, "ExcludeRetainedVariantProperties": not_kept}
    names = {"EndpointName": name, "EndpointConfigName": config}
    return built({**names, **kept, "DeploymentConfig": deployment_config(options)})


def deployment_config(options: SageMakerOptions) -> Request | None:
    """How the traffic moves, None where it is left to AWS."""
    if options.deployment_config is not None:
        return dict(_unwrapped(options.deployment_config, "DeploymentConfig"))
    waits = (options.termination_wait_s, options.update_timeout_s)
    if not options.traffic and not options.rollback_alarms and waits == (None, None):
        return None
    share = {"Type": "CAPACITY_PERCENT", "Value": options.traffic_percent}
    alarms = [{"AlarmName": each} for each in options.rollback_alarms or ()]
    rollback = {"AutoRollbackConfiguration.Alarms": alarms or None}
    if options.traffic == "rolling":
        return built(
            {
                f"{_ROLLING}.MaximumBatchSize": share,
                f"{_ROLLING}.WaitIntervalInSeconds": options.traffic_wait_s,
                f"{_ROLLING}.MaximumExecutionTimeoutInSeconds": options.update_timeout_s,
                **rollback,
            }
        )
    kind = options.traffic or "all_at_once"
    return built(
        {
            f"{_ROUTING}.Type": kind.upper(),
            f"{_ROUTING}.WaitIntervalInSeconds": 0 if kind == "all_at_once" else options.traffic_wait_s,
            f"{_ROUTING}.CanarySize": share if kind == "canary" else None,
            f"{_ROUTING}.LinearStepSize": share if kind == "linear" else None,
            f"{_BLUE_GREEN}.TerminationWaitInSeconds": options.termination_wait_s,
            f"{_BLUE_GREEN}.MaximumExecutionTimeoutInSeconds": options.update_timeout_s,
            **rollback,
        }
    )


def scaling_requests(options: SageMakerOptions, name: str) -> tuple[Request, Request] | None:
    """RegisterScalableTarget's and PutScalingPolicy's; None without autoscaling."""
    if options.max_instances is None:
        return None
    resource = {**SCALED, "ResourceId": resource_id(name, options.variant_name)}
    own = {"PolicyName": POLICY, "PolicyType": "TargetTrackingScaling", **resource, _TRACKING: options.scaling_policy}
    if not options.scaling_policy:
        metric = {f"{_TRACKING}.PredefinedMetricSpecification.PredefinedMetricType": _METRIC}
        own = {**own, **metric, **chosen(options, _SCALING)}
    return {**resource, **chosen(options, ORIGINS["RegisterScalableTarget"])}, built(own)


def resource_id(name: str, variant_name: str) -> str:
    """What autoscaling calls a variant."""
    return f"endpoint/{name}/variant/{variant_name}"


def _unwrapped(value: Any, path: str) -> Any:
    """A part of a request without the name of itself around it, as MLflow's documentation shows it."""
    name = path.rpartition(".")[2]
    inner = value[name] if isinstance(value, Mapping) and set(value) == {name} else None
    return inner if isinstance(inner, dict) else value
