"""Builds the parameters of each AWS operation from the options, and records which option each value came from.

A path in a request is `A.B` for the member B of A, without list positions; an option covers everything below its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from likewise.targets.base import JsonValue
from likewise.targets.sagemaker.names import Tags
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions

Request = dict[str, Any]
Paths = Mapping[str, str]
"""Paths in a request or a response of AWS, and the option for the value at each path."""

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
"""By operation: the option that replaces several others with a part of the request in AWS's own format."""


def origins(options: SageMakerOptions, operation: str) -> Paths:
    """The option for each path in the operation's request."""
    known, whole = ORIGINS[operation], _WHOLE.get(operation)
    if whole is None or getattr(options, whole) is None:
        return known
    return {path: option for path, option in known.items() if "." not in path}


def build(values: Mapping[str, Any]) -> Request:
    """A nested request from the values by path; None is left out."""
    request: Request = {}
    for path, value in values.items():
        *outer, last = path.split(".")
        if value is not None:
            parent = request
            for name in outer:
                parent = parent.setdefault(name, {})
            parent[last] = value
    return request


def option_values(options: object, paths: Paths) -> dict[str, Any]:
    """The option's value for each path."""
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
    """The parameters of CreateModel.

    image: its address, or a reference to an earlier step's output. data: URL of the archive, None if there is none.
    """
    container = {"Image": image, "ModelDataUrl": data, "Environment": dict(env)}
    params = {"ModelName": name, **option_values(options, MODEL), "ExecutionRoleArn": role, "Tags": tags}
    return build({**params, "PrimaryContainer": build(container)})


def variant(options: SageMakerOptions, model: str, weight: float) -> Request:
    """The production variant with these options."""
    paths = VARIANT
    if options.serverless_config is not None:
        paths = {path: VARIANT[path] for path in ("VariantName", "ServerlessConfig")}
    return build({"ModelName": model, "InitialVariantWeight": weight, **option_values(options, paths)})


def variants(options: SageMakerOptions, model: str, retained: Sequence[Mapping[str, Any]]) -> list[Request]:
    """All production variants after the plan. retained: existing variants that remain, with `mode=add`."""
    same = next((each for each in retained if each["VariantName"] == options.variant_name), None)
    weight = same.get("InitialVariantWeight", 1.0) if same else 0.0 if retained else 1.0
    others = [dict(each) for each in retained if each is not same]
    weights = options.variant_weights or {}
    return [
        {**each, "InitialVariantWeight": weights.get(each["VariantName"], each["InitialVariantWeight"])}
        for each in [*others, variant(options, model, weight)]
    ]


def config_request(options: SageMakerOptions, name: str, production: Sequence[Request], tags: Tags) -> Request:
    """The parameters of CreateEndpointConfig. production: the production variants."""
    own = {"EndpointConfigName": name, "ProductionVariants": list(production), "Tags": tags}
    return build({**own, **option_values(options, CONFIG)})


def create_request(name: str, config: str, tags: Tags) -> Request:
    """The parameters of CreateEndpoint."""
    return {"EndpointName": name, "EndpointConfigName": config, "Tags": tags}


def update_request(options: SageMakerOptions, name: str, config: str, *, scaled: bool) -> Request:
    """The parameters of UpdateEndpoint. scaled: autoscaling has set the number of instances, which is retained."""
    retained: Request = {}
    if scaled and options.max_instances is not None:
        excluded = [{"VariantPropertyType": each} for each in ("DesiredWeight", "DataCaptureConfig")]
        retained = {"RetainAllVariantProperties": True, "ExcludeRetainedVariantProperties": excluded}
    names = {"EndpointName": name, "EndpointConfigName": config}
    return build({**names, **retained, "DeploymentConfig": deployment_config(options)})


def deployment_config(options: SageMakerOptions) -> Request | None:
    """The DeploymentConfig, None to use AWS's default."""
    if options.deployment_config is not None:
        return dict(_unwrapped(options.deployment_config, "DeploymentConfig"))
    waits = (options.termination_wait_s, options.update_timeout_s)
    if not options.traffic and not options.rollback_alarms and waits == (None, None):
        return None
    step_size = {"Type": "CAPACITY_PERCENT", "Value": options.traffic_percent}
    alarms = [{"AlarmName": each} for each in options.rollback_alarms or ()]
    rollback = {"AutoRollbackConfiguration.Alarms": alarms or None}
    if options.traffic == "rolling":
        return build(
            {
                f"{_ROLLING}.MaximumBatchSize": step_size,
                f"{_ROLLING}.WaitIntervalInSeconds": options.traffic_wait_s,
                f"{_ROLLING}.MaximumExecutionTimeoutInSeconds": options.update_timeout_s,
                **rollback,
            }
        )
    kind = options.traffic or "all_at_once"
    return build(
        {
            f"{_ROUTING}.Type": kind.upper(),
            f"{_ROUTING}.WaitIntervalInSeconds": 0 if kind == "all_at_once" else options.traffic_wait_s,
            f"{_ROUTING}.CanarySize": step_size if kind == "canary" else None,
            f"{_ROUTING}.LinearStepSize": step_size if kind == "linear" else None,
            f"{_BLUE_GREEN}.TerminationWaitInSeconds": options.termination_wait_s,
            f"{_BLUE_GREEN}.MaximumExecutionTimeoutInSeconds": options.update_timeout_s,
            **rollback,
        }
    )


def scaling_requests(options: SageMakerOptions, name: str) -> tuple[Request, Request] | None:
    """The parameters of RegisterScalableTarget and of PutScalingPolicy; None without autoscaling."""
    if options.max_instances is None:
        return None
    resource = {**SCALED, "ResourceId": resource_id(name, options.variant_name)}
    own = {"PolicyName": POLICY, "PolicyType": "TargetTrackingScaling", **resource, _TRACKING: options.scaling_policy}
    if not options.scaling_policy:
        metric = {f"{_TRACKING}.PredefinedMetricSpecification.PredefinedMetricType": _METRIC}
        own = {**own, **metric, **option_values(options, _SCALING)}
    return {**resource, **option_values(options, ORIGINS["RegisterScalableTarget"])}, build(own)


def resource_id(name: str, variant_name: str) -> str:
    """A variant's ResourceId in Application Auto Scaling."""
    return f"endpoint/{name}/variant/{variant_name}"


def _unwrapped(value: Any, path: str) -> Any:
    """`value` without an outer member named like itself, as in MLflow's documentation: `{"VpcConfig": {…}}`."""
    name = path.rpartition(".")[2]
    inner = value[name] if isinstance(value, Mapping) and set(value) == {name} else None
    return inner if isinstance(inner, dict) else value
