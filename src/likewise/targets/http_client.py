"""A deployment's HTTP, as its owner on the same machine asks it."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urlsplit

from likewise.core.errors import NotDeployed, TargetUnavailable
from likewise.targets.base import Answer

LOOK_S = 2.0  # for an answer to "who are you"
SLACK_S = 10.0  # over the deployment's own deadline


def served_digest(url: str, path: str) -> str | None:
    """What answers 200 to `path` now, by its X-Likewise-Bundle; None where nothing does within LOOK_S."""
    try:
        status, said, _ = _exchange(url, LOOK_S, "GET", path, None, {})
    except (OSError, http.client.HTTPException):
        return None
    return said.get("X-Likewise-Bundle") if status == 200 else None


def invoke(url: str, headers: Mapping[str, str], body: bytes, *, deadline_s: float) -> Answer:
    """The answer to `POST /invocations`, whatever its status.

    deadline_s: the deployment's own.  Raises NotDeployed (nothing listens), TargetUnavailable (no answer, or half of
    one).
    """
    try:
        status, said, answer = _exchange(url, deadline_s + SLACK_S, "POST", "/invocations", body, headers)
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
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)) as connection:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
