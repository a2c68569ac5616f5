"""A batch transform job made, waited for and stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from likewise.core.errors import DeployFailed, TargetUnavailable
from likewise.targets.base import Outputs
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.logs import JOBS, last_lines
from likewise.targets.sagemaker.polling import Patience

ENDED = ("Completed", "Failed", "Stopped")
STOP_S = 600.0
MOST_TRIES = 100  # of one job, each with a name of its own: SageMaker never forgets one


def find(aws: Aws, job: str) -> dict[str, Any] | None:
    """The job as SageMaker tells it, None where there never was one."""
    return aws.find("sagemaker", "describe_transform_job", TransformJobName=job)


def tries(aws: Aws, stem: str) -> list[dict[str, Any]]:
    """All jobs of this stem, the one that was started last at the end."""
    found: list[dict[str, Any]] = []
    while len(found) < MOST_TRIES and (said := find(aws, name_of(stem, len(found)))) is not None:
        found.append(said)
    return found


def name_of(stem: str, earlier: int) -> str:
    """The name of a job that was tried so often before."""
    return f"{stem}-{earlier + 1}" if earlier else stem


def make(aws: Aws, _: Patience, params: Mapping[str, Any]) -> Outputs:
    """CreateTransformJob, unless it is there."""
    job = params["request"]["TransformJobName"]
    if find(aws, job) is None:
        aws.attempt(("busy",), "sagemaker", "create_transform_job", **params["request"])
    return {"job": job}


def stop(aws: Aws, patience: Patience, params: Mapping[str, Any]) -> None:
    """Stop it where it runs, and wait until nothing is paid for it any more."""
    job = params["request"]["TransformJobName"]
    if find(aws, job) is not None:
        aws.attempt(("refused", "busy"), "sagemaker", "stop_transform_job", TransformJobName=job)
        _ended(aws, patience, job, STOP_S)


def wait(aws: Aws, patience: Patience, params: Mapping[str, Any]) -> Outputs:
    """Until it has completed: how long it ran. DeployFailed with the container's last lines, TargetUnavailable."""
    job = params["job"]
    said = _ended(aws, patience, job, params["timeout_s"])
    if said is None:
        raise TargetUnavailable(
            f"the job {job} has not ended after {params['timeout_s']} seconds",
            remedy="give it longer: -C timeout_seconds=SECONDS, or more instances: -C instance_count=4",
        )
    if said["TransformJobStatus"] != "Completed":
        why = said.get("FailureReason", "AWS gives no reason")
        raise DeployFailed(
            f"the job {job} is {said['TransformJobStatus']}: {why}; {last_lines(aws, JOBS, job)}",
            remedy="its log says why; the same call starts it again",
        )
    return {"seconds": seconds(said)}


def seconds(said: Mapping[str, Any]) -> float:
    """How long a job ran, 0 for one that has not ended."""
    begun, ended = said.get("TransformStartTime"), said.get("TransformEndTime")
    return float((ended - begun).total_seconds()) if begun and ended else 0.0


def _ended(aws: Aws, patience: Patience, job: str, timeout_s: float) -> dict[str, Any] | None:
    def look() -> tuple[dict[str, Any] | None, str]:
        said = aws.call("sagemaker", "describe_transform_job", TransformJobName=job)
        state = said["TransformJobStatus"]
        return (said if state in ENDED else None), f"{job}: {state}"

    return patience.until(look, timeout_s)
