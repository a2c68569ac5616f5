"""Log records as lines of JSON, with the ids of a request where one is at hand."""

from __future__ import annotations

import json
import logging
import sys
import time

from likewise.core.uris import redacted

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
TIME = "%Y-%m-%dT%H:%M:%S%z"
"""The text format of log records, and of their times."""

IDS = ("request_id", "trace_id", "span_id")  # of a record, passed as `extra`


class JsonLines(logging.Formatter):
    """One JSON object per record: time (Unix, seconds), level, logger, message, the request's ids, and the traceback.

    Secrets in URIs are removed.
    """

    def format(self, record: logging.LogRecord) -> str:
        ids = {name: value for name in IDS if (value := getattr(record, name, None)) is not None}
        raised = {"exception": redacted(self.formatException(record.exc_info))} if record.exc_info else {}
        return _line(record.created, record.levelname, record.name, record.getMessage(), **ids, **raised)


def log_to_stderr(level: int, *, as_json: bool = False) -> None:
    """Write the log records of a service to stderr: lines of text, or of JSON."""
    logging.basicConfig(stream=sys.stderr, level=level, format=TEXT, datefmt=TIME)
    if as_json:
        write_json_lines()


def write_json_lines() -> None:
    """Make the handlers of the root logger write lines of JSON from now on."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())


def write_line(text: str, level: str = "info", **more: str) -> None:
    """Write a message that does not come from a logger as such a line to stderr."""
    sys.stderr.write(_line(time.time(), level, "likewise", text, **more) + "\n")
    sys.stderr.flush()


def _line(seconds: float, level: str, logger: str, message: str, **more: str) -> str:
    fields = {"time": round(seconds, 3), "level": level.lower(), "logger": logger, "message": redacted(message), **more}
    return json.dumps(fields, ensure_ascii=False, default=str)
