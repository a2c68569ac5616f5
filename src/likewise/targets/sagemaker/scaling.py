"""Registers and deregisters the autoscaling of a variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.requests import Request

SERVICE = "application-autoscaling"


def scale(aws: Aws, target: Request, policies: Sequence[Request]) -> None:
    """Register the variant and put its policies; idempotent."""
    aws.call(SERVICE, "register_scalable_target", **target)
    for policy in policies:
        aws.call(SERVICE, "put_scaling_policy", **policy)


def unscale(aws: Aws, target: Mapping[str, Any]) -> None:
    """Deregister the variant, with its policies and alarms, if it is registered."""
    resource = {key: target[key] for key in ("ServiceNamespace", "ResourceId", "ScalableDimension")}
    aws.attempt(("missing",), SERVICE, "deregister_scalable_target", **resource)
