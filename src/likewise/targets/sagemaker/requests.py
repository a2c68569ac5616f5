"""What AWS is asked for, as data: each operation's parameters from the options, and which option each came from.

A path into a request, without list positions, is the option's name or begins with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from likewise.targets.base import Json
from likewise.targets.sagemaker.names import Tags
from likewise.targets.sagemaker.options import SageMakerOptions, unwrapped

Request = dict[str, Any]

SCALED = {"ServiceNamespace": "sagemaker", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}
POLICY = "likewise"

_DEPLOYMENT = {
    "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration.WaitIntervalInSeconds": "traffic_wait_s",
    "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration": "traffic_percent",
    "DeploymentConfig.BlueGreenUpdatePolicy.TerminationWaitInSeconds": "termination_wait_s",
    "DeploymentConfig.BlueGreenUpdatePolicy.MaximumExecutionTimeoutInSeconds": "update_timeout_s",
    "DeploymentConfig.RollingUpdatePolicy.WaitIntervalInSeconds": "traffic_wait_s",
    "DeploymentConfig.RollingUpdatePolicy.MaximumBatchSize": "traffic_percent",
    "DeploymentConfig.RollingUpdatePolicy.MaximumExecutionTimeoutInSeconds": "update_timeout_s",
    "DeploymentConfig.AutoRollbackConfiguration": "rollback_alarms",
}
ORIGINS: dict[str, dict[str, str]] = {
    "CreateModel": {
        "ExecutionRoleArn": "execution_role_arn",
        "PrimaryContainer.Image": "image_url",
        "PrimaryContainer.ModelDataUrl": "bucket",
        "PrimaryContainer.Environment": "env",
        "VpcConfig": "vpc_config",
        "EnableNetworkIsolation": "network_isolation",
        "Tags": "tags",
    },
    "CreateEndpointConfig": {
        "ProductionVariants.VariantName": "variant_name",
        "ProductionVariants.InstanceType": "instance_type",
        "ProductionVariants.InitialInstanceCount": "instance_count",
        "ProductionVariants.InitialVariantWeight": "variant_weights",
        "ProductionVariants.ServerlessConfig": "serverless_config",
        "ProductionVariants.VolumeSizeInGB": "volume_size_gb",
        "ProductionVariants.ModelDataDownloadTimeoutInSeconds": "model_download_timeout_s",
        "ProductionVariants.ContainerStartupHealthCheckTimeoutInSeconds": "startup_timeout_s",
        "ProductionVariants.InferenceAmiVersion": "inference_ami_version",
        "ProductionVariants.RoutingConfig.RoutingStrategy": "routing_strategy",
        "DataCaptureConfig": "data_capture_config",
        "AsyncInferenceConfig": "async_inference_config",
        "KmsKeyId": "kms_key_id",
        "Tags": "tags",
    },
    "CreateEndpoint": {"EndpointName": "NAME", "Tags": "tags"},
    "UpdateEndpoint": {"EndpointName": "NAME", **_DEPLOYMENT, "DeploymentConfig": "deployment_config"},
    "RegisterScalableTarget": {"MinCapacity": "min_instances", "MaxCapacity": "max_instances"},
    "PutScalingPolicy": {
        "TargetTrackingScalingPolicyConfiguration.TargetValue": "invocations_per_instance",
        "TargetTrackingScalingPolicyConfiguration.ScaleInCooldown": "scale_in_cooldown_s",
        "TargetTrackingScalingPolicyConfiguration.ScaleOutCooldown": "scale_out_cooldown_s",
        "TargetTrackingScalingPolicyConfiguration": "scaling_policy",
    },
}


_WHOLE = {"UpdateEndpoint": "deployment_config", "PutScalingPolicy": "scaling_policy"}
"""Options that hold a part of a request as AWS has it, in the place of others."""


def origins(options: SageMakerOptions, operation: str) -> dict[str, str]:
    """The option of each path into the operation's request."""
    known, whole = ORIGINS[operation], _WHOLE.get(operation)
    if whole is None or getattr(options, whole) is None:
        return known
    return {path: option for path, option in known.items() if "." not in path}


def model_request(
    options: SageMakerOptions, name: str, role: str, image: Json, data: Json, env: Mapping[str, str], tags: Tags
) -> Request:
    """CreateModel's. image: as AWS takes it, or a reference to an earlier step's output. data: None for none."""
    container = {"Image": image, "ModelDataUrl": data, "Environment": dict(env)}
    return _said(
        ModelName=name,
        ExecutionRoleArn=role,
        PrimaryContainer=_said(**container),
        VpcConfig=options.vpc_config,
        EnableNetworkIsolation=options.network_isolation,
        Tags=tags,
    )


def variant(options: SageMakerOptions, model: str, weight: float) -> Request:
    """The production variant that the options describe."""
    serverless = unwrapped(options.serverless_config, "ServerlessConfig")
    if serverless is not None:
        return _said(
            VariantName=options.variant_name, ModelName=model, InitialVariantWeight=weight, ServerlessConfig=serverless
        )
    routing = options.routing_strategy
    return _said(
        VariantName=options.variant_name,
        ModelName=model,
        InitialVariantWeight=weight,
        InstanceType=options.instance_type,
        InitialInstanceCount=options.instance_count,
        VolumeSizeInGB=options.volume_size_gb,
        ModelDataDownloadTimeoutInSeconds=options.model_download_timeout_s,
        ContainerStartupHealthCheckTimeoutInSeconds=options.startup_timeout_s,
        InferenceAmiVersion=options.inference_ami_version,
        RoutingConfig=None if routing is None else {"RoutingStrategy": routing},
    )


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
    return _said(
        EndpointConfigName=name,
        ProductionVariants=list(among),
        DataCaptureConfig=unwrapped(options.data_capture_config, "DataCaptureConfig"),
        AsyncInferenceConfig=unwrapped(options.async_inference_config, "AsyncInferenceConfig"),
        KmsKeyId=options.kms_key_id,
        Tags=tags,
    )


def create_request(name: str, config: str, tags: Tags) -> Request:
    """CreateEndpoint's."""
    return {"EndpointName": name, "EndpointConfigName": config, "Tags": tags}


def update_request(options: SageMakerOptions, name: str, config: str, *, scaled: bool) -> Request:
    """UpdateEndpoint's. scaled: its instances are as many as autoscaling has made them, and stay so."""
    kept: Request = {}
    if scaled and options.max_instances is not None:
        not_kept = [{"VariantPropertyType": each} for each in ("DesiredWeight", "DataCaptureConfig")]
        kept = {"RetainAllVariantProperties": True, "ExcludeRetainedVariantProperties": not_kept}
    return _said(EndpointName=name, EndpointConfigName=config, **kept, DeploymentConfig=deployment_config(options))


def deployment_config(options: SageMakerOptions) -> Request | None:
    """How the traffic moves, None where it is left to AWS."""
    if options.deployment_config is not None:
        return unwrapped(options.deployment_config, "DeploymentConfig")
    alarms = options.rollback_alarms
    rollback = None if not alarms else {"Alarms": [{"AlarmName": each} for each in alarms]}
    if (
        options.traffic is None
        and rollback is None
        and options.termination_wait_s is None
        and options.update_timeout_s is None
    ):
        return None
    if options.traffic == "rolling":
        rolling = _said(
            MaximumBatchSize=_share(options),
            WaitIntervalInSeconds=options.traffic_wait_s,
            MaximumExecutionTimeoutInSeconds=options.update_timeout_s,
        )
        return _said(RollingUpdatePolicy=rolling, AutoRollbackConfiguration=rollback)
    return _said(BlueGreenUpdatePolicy=_blue_green(options), AutoRollbackConfiguration=rollback)


def scaling_requests(options: SageMakerOptions, name: str) -> tuple[Request, Request] | None:
    """RegisterScalableTarget's and PutScalingPolicy's; None without autoscaling."""
    if options.max_instances is None:
        return None
    resource = {**SCALED, "ResourceId": resource_id(name, options.variant_name)}
    capacity = {"MinCapacity": options.min_instances, "MaxCapacity": options.max_instances}
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    policy = options.scaling_policy or _said(
        TargetValue=options.invocations_per_instance,
        PredefinedMetricSpecification=metric,
        ScaleInCooldown=options.scale_in_cooldown_s,
        ScaleOutCooldown=options.scale_out_cooldown_s,
    )
    about = {"PolicyName": POLICY, "PolicyType": "TargetTrackingScaling"}
    return {**resource, **capacity}, {**about, **resource, "TargetTrackingScalingPolicyConfiguration": policy}


def resource_id(name: str, variant_name: str) -> str:
    """What autoscaling calls a variant."""
    return f"endpoint/{name}/variant/{variant_name}"


def _blue_green(options: SageMakerOptions) -> Request:
    kind = options.traffic or "all_at_once"
    waits = 0 if kind == "all_at_once" else options.traffic_wait_s
    routing = _said(
        Type=kind.upper(),
        WaitIntervalInSeconds=waits,
        CanarySize=_share(options) if kind == "canary" else None,
        LinearStepSize=_share(options) if kind == "linear" else None,
    )
    return _said(
        TrafficRoutingConfiguration=routing,
        TerminationWaitInSeconds=options.termination_wait_s,
        MaximumExecutionTimeoutInSeconds=options.update_timeout_s,
    )


def _share(options: SageMakerOptions) -> Request:
    return {"Type": "CAPACITY_PERCENT", "Value": options.traffic_percent}


def _said(**members: Any) -> Request:
    return {name: value for name, value in members.items() if value is not None}
