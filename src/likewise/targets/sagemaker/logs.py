"""The logs of containers in CloudWatch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from likewise.core.errors import LikewiseError
from likewise.targets.base import LOG_ENDS
from likewise.targets.sagemaker.aws import Aws

ENDPOINTS, JOBS = "/aws/sagemaker/Endpoints", "/aws/sagemaker/TransformJobs"
LINES, STREAMS = 15, 3
NEWEST = 50  # streams of an endpoint that are read: one per instance
MOST = 10_000  # lines that CloudWatch returns at once
POLL_S = 1.0


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


def log_lines(aws: Aws, name: str, lines: int, follow: bool, sleep: Callable[[float], None]) -> Iterator[str]:
    """The log of all instances of the endpoint `name`; see `likewise.targets.base.Logs`.

    Each line starts with its stream if there are several.  sleep: waits a number of seconds.
    """
    group, tokens = f"{ENDPOINTS}/{name}", dict[str, str]()
    latest = {"limit": min(max(lines, 1), MOST), "startFromHead": False}
    events = _new_events(aws, group, tokens, latest)
    yield from events[max(0, len(events) - lines) :]
    while follow:
        if aws.find("sagemaker", "describe_endpoint", EndpointName=name) is None:
            yield from _new_events(aws, group, tokens, {"startFromHead": True})
            yield LOG_ENDS
            return
        yield from _new_events(aws, group, tokens, {"startFromHead": True})
        sleep(POLL_S)


def _new_events(aws: Aws, group: str, tokens: dict[str, str], first: dict[str, Any]) -> list[str]:
    """The lines of all streams that are not read yet, by time.

    tokens: by stream, the position after the lines that were read; updated.  first: how to read a stream without one.
    """
    newest = {"orderBy": "LastEventTime", "descending": True, "limit": NEWEST}
    response = aws.find("logs", "describe_log_streams", logGroupName=group, **newest)
    events: list[tuple[int, str, str]] = []
    for stream in [each["logStreamName"] for each in (response or {}).get("logStreams", [])]:
        place = {"nextToken": tokens[stream], "startFromHead": True} if stream in tokens else first
        page = aws.call("logs", "get_log_events", logGroupName=group, logStreamName=stream, **place)
        tokens[stream] = page["nextForwardToken"]
        events += [(each["timestamp"], stream, str(each["message"]).rstrip()) for each in page["events"]]
    events.sort(key=lambda event: event[0])
    several = len(tokens) > 1
    return [aws.without_secrets(f"{stream}: {line}" if several else line) for _, stream, line in events]
