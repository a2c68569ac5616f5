"""Create, update, wait for and delete an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from likewise.core.errors import AlreadyDeployed, DeployFailed, LikewiseError, TargetUnavailable
from likewise.targets.base import Outputs
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.failures import KINDS, error_for, kind_of_message
from likewise.targets.sagemaker.inspection import SETTLED
from likewise.targets.sagemaker.logs import ENDPOINTS, last_lines
from likewise.targets.sagemaker.polling import Poller

GRACE_S = 20.0  # an accepted update may take this long to show in DescribeEndpoint
MIN_ROLLBACK_S = 1800.0  # AWS does not delete an endpoint that it is still creating
READY = "InService"
BUSY_REMEDY = KINDS["busy"].remedy


def describe(aws: Aws, name: str) -> dict[str, Any] | None:
    """SageMaker's description of the endpoint, None if it does not exist."""
    return aws.find("sagemaker", "describe_endpoint", EndpointName=name)


def create(aws: Aws, request: Mapping[str, Any]) -> Outputs:
    """CreateEndpoint if it does not exist; AlreadyDeployed if another endpoint has the name."""
    name = request["EndpointName"]
    endpoint = describe(aws, name)
    if endpoint is None:
        aws.create("sagemaker", "create_endpoint", **request)
        endpoint = describe(aws, name) or {}
    if endpoint.get("EndpointConfigName") != request["EndpointConfigName"]:
        raise AlreadyDeployed(
            f"SageMaker already has an endpoint {name!r}",
            remedy=f"run: likewise update {name} MODEL, or choose another name",
        )
    return {"arn": endpoint["EndpointArn"]}


def update(aws: Aws, request: Mapping[str, Any]) -> Outputs:
    """UpdateEndpoint, unless the endpoint has this configuration already or is moving to it."""
    endpoint = aws.call("sagemaker", "describe_endpoint", EndpointName=request["EndpointName"])
    if request["EndpointConfigName"] not in (endpoint["EndpointConfigName"], _pending_config(endpoint)):
        aws.attempt(("busy",), "sagemaker", "update_endpoint", **request)
    return {"arn": endpoint["EndpointArn"]}


def wait(aws: Aws, poller: Poller, name: str, config: str, timeout_s: float) -> None:
    """Wait until the endpoint is in service with `config`; DeployFailed with its log, TargetUnavailable."""
    endpoint = _settled(aws, poller, name, timeout_s, config)
    if endpoint is None:
        raise DeployFailed(
            f"the endpoint {name!r} was not ready after {timeout_s:g} seconds; {_log(aws, name)}",
            remedy="allow more time, for example -C timeout_seconds=3600",
        )
    if endpoint["EndpointStatus"] != READY or endpoint["EndpointConfigName"] != config:
        raise _failed(aws, name, endpoint)


def remove(aws: Aws, poller: Poller, name: str, timeout_s: float) -> None:
    """DeleteEndpoint, and wait until it is gone; if AWS is changing the endpoint, wait for that first."""

    def check() -> tuple[bool | None, str]:
        endpoint = describe(aws, name)
        if endpoint is None:
            return True, f"{name}: gone"
        if endpoint["EndpointStatus"] != "Deleting":
            aws.attempt(("missing", "busy"), "sagemaker", "delete_endpoint", EndpointName=name)
        return None, f"{name}: {endpoint['EndpointStatus']}"

    if poller.until(check, max(timeout_s, MIN_ROLLBACK_S)) is None:
        raise TargetUnavailable(f"the endpoint {name!r} is not deleted yet", remedy=BUSY_REMEDY)


def roll_back(aws: Aws, poller: Poller, request: Mapping[str, Any], before: str, timeout_s: float) -> None:
    """Undo an update: move the endpoint back to the configuration `before`, unless AWS has done so itself."""
    name, timeout_s = request["EndpointName"], max(timeout_s, MIN_ROLLBACK_S)
    endpoint = _settled(aws, poller, name, timeout_s)
    if endpoint is None:
        raise TargetUnavailable(f"the endpoint {name!r} is still being changed", remedy=BUSY_REMEDY)
    if endpoint["EndpointConfigName"] == request["EndpointConfigName"] != before:  # leave another client's update alone
        aws.call("sagemaker", "update_endpoint", EndpointName=name, EndpointConfigName=before)
        wait(aws, poller, name, before, timeout_s)


def _settled(aws: Aws, poller: Poller, name: str, timeout_s: float, config: str | None = None) -> dict[str, Any] | None:
    """The endpoint when no change is in progress, None after `timeout_s` seconds.

    config: the requested configuration.  Until it is reported, or GRACE_S have passed, the update may not have started.
    """
    started, moved = poller.now(), config is None

    def check() -> tuple[dict[str, Any] | None, str]:
        nonlocal moved
        endpoint = aws.call("sagemaker", "describe_endpoint", EndpointName=name)
        state, has_config = endpoint["EndpointStatus"], endpoint["EndpointConfigName"] == config
        moved = moved or state not in SETTLED
        over = has_config or moved or poller.now() - started > GRACE_S
        return (endpoint if state in SETTLED and over else None), f"{name}: {state}"

    return poller.until(check, timeout_s)


def _pending_config(endpoint: Mapping[str, Any]) -> str | None:
    pending = endpoint.get("PendingDeploymentSummary") or {}
    return pending.get("EndpointConfigName")


def _failed(aws: Aws, name: str, endpoint: Mapping[str, Any]) -> LikewiseError:
    reason = endpoint.get("FailureReason") or "AWS gives no reason"
    if endpoint["EndpointStatus"] == READY:
        reason = f"AWS has rolled the update back: {reason}"
    error = error_for(kind_of_message(reason) or "health", f"the endpoint {name!r} failed: {reason}; {_log(aws, name)}")
    return error if isinstance(error, DeployFailed) else DeployFailed(error.cause, remedy=error.remedy)


def _log(aws: Aws, name: str) -> str:
    return last_lines(aws, f"{ENDPOINTS}/{name}")
