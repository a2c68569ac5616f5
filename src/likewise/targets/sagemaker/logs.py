"""The last lines that a container has written, as CloudWatch has them."""

from __future__ import annotations

from likewise.core.errors import LikewiseError
from likewise.targets.sagemaker.aws import Aws

ENDPOINTS, JOBS = "/aws/sagemaker/Endpoints", "/aws/sagemaker/TransformJobs"
LINES, STREAMS = 15, 3


def last_lines(aws: Aws, group: str, prefix: str | None = None) -> str:
    """Up to LINES of them, the newest last; where they cannot be read, a line that says why.

    group: a log group. prefix: of its streams, None for those that were written last.
    """
    order = {"logStreamNamePrefix": prefix} if prefix else {"orderBy": "LastEventTime", "descending": True}
    try:
        said = aws.find("logs", "describe_log_streams", logGroupName=group, limit=STREAMS, **order)
        streams = [each["logStreamName"] for each in (said or {}).get("logStreams", [])]
        lines = [line for stream in reversed(streams) for line in _lines(aws, group, stream)]
    except LikewiseError as error:
        return f"its log cannot be read: {error.cause}"
    if not lines:
        return f"CloudWatch has no line of it in {group}"
    return "its last lines:\n" + aws.scrubbed("\n".join(lines[-LINES:]))


def _lines(aws: Aws, group: str, stream: str) -> list[str]:
    said = aws.call(
        "logs", "get_log_events", logGroupName=group, logStreamName=stream, limit=LINES, startFromHead=False
    )
    return [str(each["message"]).rstrip() for each in said["events"]]
