"""Create, wait for and stop a batch transform job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from likewise.core.errors import DeployFailed, TargetUnavailable
from likewise.targets.base import Outputs
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.logs import JOBS, last_lines
from likewise.targets.sagemaker.polling import Poller

ENDED = ("Completed", "Failed", "Stopped")
STOP_S = 600.0
MAX_ATTEMPTS = 100  # at one job, each with its own name, because SageMaker never frees a job's name


def describe(aws: Aws, job: str) -> dict[str, Any] | None:
    """SageMaker's description of the job, None if it never existed."""
    return aws.find("sagemaker", "describe_transform_job", TransformJobName=job)


def attempts(aws: Aws, stem: str) -> list[dict[str, Any]]:
    """Descriptions of all jobs whose names were derived from `stem`, in the order in which they were started."""
    jobs: list[dict[str, Any]] = []
    while len(jobs) < MAX_ATTEMPTS and (job := describe(aws, name_of(stem, len(jobs)))) is not None:
        jobs.append(job)
    return jobs


def name_of(stem: str, earlier: int) -> str:
    """The name of the next attempt after `earlier` attempts."""
    return f"{stem}-{earlier + 1}" if earlier else stem


def create(aws: Aws, _: Poller, params: Mapping[str, Any]) -> Outputs:
    """CreateTransformJob, unless the job exists."""
    job = params["request"]["TransformJobName"]
    if describe(aws, job) is None:
        aws.attempt(("busy",), "sagemaker", "create_transform_job", **params["request"])
    return {"job": job}


def stop(aws: Aws, poller: Poller, params: Mapping[str, Any]) -> None:
    """Stop the job if it is running, and wait until it has ended and costs nothing more."""
    job = params["request"]["TransformJobName"]
    if describe(aws, job) is not None:
        aws.attempt(("refused", "busy"), "sagemaker", "stop_transform_job", TransformJobName=job)
        _ended(aws, poller, job, STOP_S)


def wait(aws: Aws, poller: Poller, params: Mapping[str, Any]) -> Outputs:
    """Wait until the job has completed; output: its run time.  DeployFailed with the log, TargetUnavailable."""
    job = params["job"]
    described = _ended(aws, poller, job, params["timeout_s"])
    if described is None:
        raise TargetUnavailable(
            f"the job {job} has not ended after {params['timeout_s']} seconds",
            remedy="allow more time: -C timeout_seconds=SECONDS, or use more instances: -C instance_count=4",
        )
    if described["TransformJobStatus"] != "Completed":
        why = described.get("FailureReason", "AWS gives no reason")
        raise DeployFailed(
            f"the job {job} is {described['TransformJobStatus']}: {why}; {last_lines(aws, JOBS, job)}",
            remedy="fix the cause that the log shows, then run the same command to start the job again",
        )
    return {"seconds": seconds(described)}


def seconds(described: Mapping[str, Any]) -> float:
    """How long a job ran, 0 if it has not ended."""
    started, ended = described.get("TransformStartTime"), described.get("TransformEndTime")
    return float((ended - started).total_seconds()) if started and ended else 0.0


def _ended(aws: Aws, poller: Poller, job: str, timeout_s: float) -> dict[str, Any] | None:
    """The job's description when it has ended, None after `timeout_s` seconds."""

    def check() -> tuple[dict[str, Any] | None, str]:
        described = aws.call("sagemaker", "describe_transform_job", TransformJobName=job)
        state = described["TransformJobStatus"]
        return (described if state in ENDED else None), f"{job}: {state}"

    return poller.until(check, timeout_s)
