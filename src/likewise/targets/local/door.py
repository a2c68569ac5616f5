"""A local deployment's HTTP, as its owner asks it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likewise.core.errors import WrongUsage
from likewise.server.auth import tokens_in
from likewise.targets import asking
from likewise.targets.base import Answer


def invoke(url: str, options: Mapping[str, Any], body: bytes, content_type: str) -> Answer:
    """As `asking.invoke`, with a token where the deployment asks for one."""
    headers = {"Content-Type": content_type, **_authorization(options["token_file"])}
    return asking.invoke(url, headers, body, deadline_s=options["deadline_s"])


def _authorization(token_file: str | None) -> dict[str, str]:
    if token_file is None:
        return {}
    try:
        tokens = tokens_in(Path(token_file).read_bytes())
    except OSError as error:
        raise WrongUsage(f"the token file {token_file} cannot be read: {error}", remedy="mend the file") from error
    return {"Authorization": f"Bearer {tokens[0].decode('latin-1')}"} if tokens else {}  # as HTTP writes headers
