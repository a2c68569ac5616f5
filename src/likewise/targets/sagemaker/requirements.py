"""Checks all requests that a deployment may send before the first one is sent."""

from __future__ import annotations

from likewise.core.spec import ModelSpec
from likewise.targets.sagemaker import requests
from likewise.targets.sagemaker.names import tags_of
from likewise.targets.sagemaker.plan import container_env
from likewise.targets.sagemaker.request_validation import check
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions

_NAME = "name"  # placeholder for values that are not known yet
_ROLE = "arn:aws:iam::123456789012:role/name"


def check_requests(model: ModelSpec, options: SageMakerOptions) -> None:
    """Raise WrongUsage for the first option whose value AWS's model of an operation does not allow."""
    tags = tags_of(_NAME, model, options.tags or {})
    role, image = options.execution_role_arn or _ROLE, options.image_url or _NAME
    data = f"s3://{options.bucket or _NAME}/{_NAME}"
    operations = {
        "CreateModel": requests.model_request(options, _NAME, role, image, data, container_env(model, options), tags),
        "CreateEndpointConfig": requests.config_request(options, _NAME, requests.variants(options, _NAME, ()), tags),
        "CreateEndpoint": requests.create_request(_NAME, _NAME, tags),
        "UpdateEndpoint": requests.update_request(options, _NAME, _NAME, scaled=True),
    }
    for operation, request in operations.items():
        check("sagemaker", operation, request, requests.origins(options, operation))
    for operation, request in zip(
        ("RegisterScalableTarget", "PutScalingPolicy"), requests.scaling_requests(options, _NAME) or (), strict=False
    ):
        check("application-autoscaling", operation, request, requests.origins(options, operation))
