"""A deployment's HTTP, as its owner asks it."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from urllib.parse import urlsplit

from likewise.core.errors import NotDeployed, TargetUnavailable
from likewise.targets.base import Answer

LOOK_S = 2.0  # for an answer to "who are you"
DEADLINE_S = 55.0  # the container's own, where nobody has set another
SLACK_S = 10.0


def served_digest(url: str) -> str | None:
    """What answers now, by its X-Likewise-Bundle; None where nothing is ready within LOOK_S."""
    try:
        status, said, _ = _exchange(url, LOOK_S, "GET", "/ready", None, {})
    except (OSError, http.client.HTTPException):
        return None
    return said.get("X-Likewise-Bundle") if status == 200 else None


def invoke(url: str, env: Mapping[str, str], body: bytes, content_type: str) -> Answer:
    """The answer to `POST /invocations`, whatever its status; NotDeployed (nothing listens), TargetUnavailable."""
    patience_s = float(env.get("LIKEWISE_DEADLINE_S") or DEADLINE_S) + SLACK_S
    try:
        status, said, answer = _exchange(url, patience_s, "POST", "/invocations", body, {"Content-Type": content_type})
    except ConnectionRefusedError as error:
        raise NotDeployed(f"nothing answers at {url}", remedy="likewise status NAME tells how it is") from error
    except (OSError, http.client.HTTPException) as error:
        raise TargetUnavailable(
            f"{url} gave no answer: {type(error).__name__}: {error}", remedy="likewise status NAME tells how it is"
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
