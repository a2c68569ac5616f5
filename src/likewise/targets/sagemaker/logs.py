"""The last lines of a container's log in CloudWatch."""

from __future__ import annotations

from likewise.core.errors import LikewiseError
from likewise.targets.sagemaker.aws import Aws

ENDPOINTS, JOBS = "/aws/sagemaker/Endpoints", "/aws/sagemaker/TransformJobs"
LINES, STREAMS = 15, 3


def last_lines(aws: Aws, group: str, prefix: str | None = None) -> str:
    """The last LINES lines for an error message, the newest last; if they cannot be read, the reason.

    group: a log group. prefix: of the names of its streams, None for the streams with the latest events.
    """
    order = {"logStreamNamePrefix": prefix} if prefix else {"orderBy": "LastEventTime", "descending": True}
    try:
        response = aws.find("logs", "describe_log_streams", logGroupName=group, limit=STREAMS, **order)
        streams = [each["logStreamName"] for each in (response or {}).get("logStreams", [])]
        lines = [line for stream in reversed(streams) for line in _lines(aws, group, stream)]
    except LikewiseError as error:
        return f"the log cannot be read: {error.cause}"
    if not lines:
        return f"CloudWatch has no log lines in {group}"
    return "last lines of the log:\n" + aws.scrubbed("\n".join(lines[-LINES:]))


def _lines(aws: Aws, group: str, stream: str) -> list[str]:
    response = aws.call(
        "logs", "get_log_events", logGroupName=group, logStreamName=stream, limit=LINES, startFromHead=False
    )
    return [str(each["message"]).rstrip() for each in response["events"]]
