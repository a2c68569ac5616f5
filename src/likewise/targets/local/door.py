"""A local deployment's HTTP, as its owner asks it."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from likewise.core.errors import NotDeployed, TargetUnavailable, WrongUsage
from likewise.server.auth import tokens_in
from likewise.targets.base import Answer

LOOK_S = 2.0  # for an answer to "who are you"
SLACK_S = 10.0  # over the deployment's own deadline


def served_digest(url: str) -> str | None:
    """What answers now, by its X-Likewise-Bundle; None where nothing does within LOOK_S."""
    try:
        return _exchange(url, LOOK_S, "GET", "/ping", None, {})[1].get("X-Likewise-Bundle")
    except (OSError, http.client.HTTPException):
        return None


def invoke(url: str, options: Mapping[str, Any], body: bytes, content_type: str) -> Answer:
    """The answer to `POST /invocations`, whatever its status, with a token where the deployment asks for one.

    Raises NotDeployed (nothing listens), TargetUnavailable (no answer, or half of one).
    """
    headers = {"Content-Type": content_type, **_authorization(options["token_file"])}
    try:
        status, said, answer = _exchange(url, options["deadline_s"] + SLACK_S, "POST", "/invocations", body, headers)
    except ConnectionRefusedError as error:
        raise NotDeployed(f"nothing answers at {url}", remedy="likewise status NAME tells how it is") from error
    except (OSError, http.client.HTTPException) as error:
        raise TargetUnavailable(
            f"{url} gave no answer: {type(error).__name__}: {error}", remedy="send the request again"
        ) from error
    return Answer(status, said.get("Content-Type", ""), answer)


def _exchange(
    url: str, timeout_s: float, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[int, http.client.HTTPMessage, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def _authorization(token_file: str | None) -> dict[str, str]:
    if token_file is None:
        return {}
    try:
        tokens = tokens_in(Path(token_file).read_bytes())
    except OSError as error:
        raise WrongUsage(f"the token file {token_file} cannot be read: {error}", remedy="mend the file") from error
    return {"Authorization": f"Bearer {tokens[0].decode('latin-1')}"} if tokens else {}  # as HTTP writes headers
