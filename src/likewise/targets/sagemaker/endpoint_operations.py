"""An endpoint made, changed, waited for and removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from likewise.core.errors import AlreadyDeployed, DeployFailed, LikewiseError, TargetUnavailable
from likewise.targets.base import Outputs
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.failures import KINDS, kind_of_message, told
from likewise.targets.sagemaker.inspection import SETTLED
from likewise.targets.sagemaker.logs import ENDPOINTS, last_lines
from likewise.targets.sagemaker.polling import Patience

GRACE_S = 20.0  # in which an update that AWS has taken may not show yet
BACK_S = 1800.0  # at least, for taking back: AWS deletes nothing that it is still making
READY = "InService"
BUSY_REMEDY = KINDS["busy"].remedy


def describe(aws: Aws, name: str) -> dict[str, Any] | None:
    """The endpoint as SageMaker tells it, None where there is none."""
    return aws.find("sagemaker", "describe_endpoint", EndpointName=name)


def create(aws: Aws, request: Mapping[str, Any]) -> Outputs:
    """CreateEndpoint, where it is not there; AlreadyDeployed where another one has the name."""
    name = request["EndpointName"]
    said = describe(aws, name)
    if said is None:
        aws.make("sagemaker", "create_endpoint", **request)
        said = describe(aws, name) or {}
    if said.get("EndpointConfigName") != request["EndpointConfigName"]:
        raise AlreadyDeployed(
            f"SageMaker has an endpoint {name!r} already", remedy=f"likewise update {name} MODEL, or take another name"
        )
    return {"arn": said["EndpointArn"]}


def update(aws: Aws, request: Mapping[str, Any]) -> Outputs:
    """UpdateEndpoint, unless that is what it stands on or goes to already; what AWS is busy with is waited for."""
    said = aws.call("sagemaker", "describe_endpoint", EndpointName=request["EndpointName"])
    if request["EndpointConfigName"] not in (said["EndpointConfigName"], _goes_to(said)):
        aws.attempt(("busy",), "sagemaker", "update_endpoint", **request)
    return {"arn": said["EndpointArn"]}


def wait(aws: Aws, patience: Patience, name: str, config: str, timeout_s: float) -> None:
    """Until it answers, standing on `config`; DeployFailed with its log, TargetUnavailable."""
    said = _settled(aws, patience, name, timeout_s, config)
    if said is None:
        raise DeployFailed(
            f"the endpoint {name!r} was not ready after {timeout_s:g} seconds; {_log(aws, name)}",
            remedy="give it longer: -C timeout_seconds=3600",
        )
    if said["EndpointStatus"] != READY or said["EndpointConfigName"] != config:
        raise _failed(aws, name, said)


def remove(aws: Aws, patience: Patience, name: str, timeout_s: float) -> None:
    """DeleteEndpoint, and wait until it is gone; one that AWS is busy with is waited for first."""

    def look() -> tuple[bool | None, str]:
        said = describe(aws, name)
        if said is None:
            return True, f"{name}: gone"
        if said["EndpointStatus"] != "Deleting":
            aws.attempt(("missing", "busy"), "sagemaker", "delete_endpoint", EndpointName=name)
        return None, f"{name}: {said['EndpointStatus']}"

    if patience.until(look, max(timeout_s, BACK_S)) is None:
        raise TargetUnavailable(f"the endpoint {name!r} is still there, though it was to go", remedy=BUSY_REMEDY)


def back(aws: Aws, patience: Patience, request: Mapping[str, Any], before: str, timeout_s: float) -> None:
    """An update taken back: AWS has rolled it back itself, or the endpoint is told to stand on `before` again."""
    name, timeout_s = request["EndpointName"], max(timeout_s, BACK_S)
    said = _settled(aws, patience, name, timeout_s)
    if said is None:
        raise TargetUnavailable(f"the endpoint {name!r} is still being changed", remedy=BUSY_REMEDY)
    if said["EndpointConfigName"] == request["EndpointConfigName"] != before:  # another's update is left alone
        aws.call("sagemaker", "update_endpoint", EndpointName=name, EndpointConfigName=before)
        wait(aws, patience, name, before, timeout_s)


def _settled(
    aws: Aws, patience: Patience, name: str, timeout_s: float, config: str | None = None
) -> dict[str, Any] | None:
    """The endpoint when nothing changes it any more, None where that does not come in time.

    config: what it was told to stand on; until that shows, or GRACE_S have passed, it may not have begun to move.
    """
    begun, moved = patience.now(), config is None

    def look() -> tuple[dict[str, Any] | None, str]:
        nonlocal moved
        said = aws.call("sagemaker", "describe_endpoint", EndpointName=name)
        state, stands = said["EndpointStatus"], said["EndpointConfigName"] == config
        moved = moved or state not in SETTLED
        over = stands or moved or patience.now() - begun > GRACE_S
        return (said if state in SETTLED and over else None), f"{name}: {state}"

    return patience.until(look, timeout_s)


def _goes_to(said: Mapping[str, Any]) -> str | None:
    pending = said.get("PendingDeploymentSummary") or {}
    return pending.get("EndpointConfigName")


def _failed(aws: Aws, name: str, said: Mapping[str, Any]) -> LikewiseError:
    reason = said.get("FailureReason") or "AWS gives no reason"
    if said["EndpointStatus"] == READY:
        reason = f"AWS has rolled the update back: {reason}"
    error = told(kind_of_message(reason) or "health", f"the endpoint {name!r} failed: {reason}; {_log(aws, name)}")
    return error if isinstance(error, DeployFailed) else DeployFailed(error.cause, remedy=error.remedy)


def _log(aws: Aws, name: str) -> str:
    return last_lines(aws, f"{ENDPOINTS}/{name}")
