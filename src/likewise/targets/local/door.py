"""A local deployment's HTTP, as its owner asks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from likewise.server.auth import authorization
from likewise.targets import asking
from likewise.targets.base import Answer


def invoke(url: str, options: Mapping[str, Any], body: bytes, content_type: str) -> Answer:
    """As `asking.invoke`, with a token where the deployment asks for one."""
    headers = {"Content-Type": content_type, **authorization(options["token_file"])}
    return asking.invoke(url, headers, body, deadline_s=options["deadline_s"])
