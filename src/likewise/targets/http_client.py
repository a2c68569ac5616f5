"""An HTTP client for deployments on this machine."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from contextlib import closing
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

from likewise.core.errors import NotDeployed, TargetUnavailable
from likewise.targets.base import Response

PROBE_TIMEOUT_S = 2.0  # for a health check
SLACK_S = 10.0  # how much longer than the deployment's own deadline a client waits
CHECK_STATUS = "run `likewise status NAME` to see its state"


class Served(NamedTuple):
    """The model digest and the build digest of the bundle that a service serves, and the label of its engine."""

    bundle: str | None = None
    build: str | None = None
    engine: str | None = None


class Health(NamedTuple):
    """The response to `GET /ready`: what it serves if it is ready; else the first line of its message, if any."""

    served: Served | None = None
    message: str = ""

    @property
    def reason(self) -> str:
        """`: ` and the message, for the end of a sentence; empty without one."""
        return f": {self.message}" if self.message else ""


def health(url: str, headers: Mapping[str, str] = MappingProxyType({})) -> Health:
    """Whether a service is ready, within PROBE_TIMEOUT_S.

    headers: of the request, with a token if the service requires one: without it, the response names no model.
    """
    try:
        status, received, body = _exchange(url, PROBE_TIMEOUT_S, "GET", "/ready", None, headers)
        if status == 200:
            return Health(served_by(received))
        return Health(message=json.loads(body)["message"].splitlines()[0])
    except (OSError, http.client.HTTPException, ValueError, TypeError, LookupError, AttributeError):
        return Health()


def served_by(headers: http.client.HTTPMessage) -> Served:
    """What the headers of a response name."""
    return Served(*(headers.get(f"X-Likewise-{name}") for name in ("Bundle", "Build", "Engine")))


def metrics_page(url: str, headers: Mapping[str, str]) -> str:
    """The response to `GET /metrics`.  Raises TargetUnavailable without a 200 within PROBE_TIMEOUT_S."""
    try:
        status, _, body = _exchange(url, PROBE_TIMEOUT_S, "GET", "/metrics", None, headers)
    except (OSError, http.client.HTTPException) as error:
        raise TargetUnavailable(f"no response from {url}/metrics: {error}", remedy=CHECK_STATUS) from error
    if status != 200:
        raise TargetUnavailable(f"{url}/metrics responded with status {status}", remedy=CHECK_STATUS)
    return body.decode()


def invoke(url: str, headers: Mapping[str, str], body: bytes, *, deadline_s: float, name: str = "NAME") -> Response:
    """The response to `POST /invocations`, of any status.

    deadline_s: the deployment's own.  name: of the deployment, for error messages.
    Raises NotDeployed (connection refused), TargetUnavailable (no response, or an incomplete one).
    """
    remedy = CHECK_STATUS.replace("NAME", name)
    try:
        status, received, content = _exchange(url, deadline_s + SLACK_S, "POST", "/invocations", body, headers)
    except ConnectionRefusedError as error:
        raise NotDeployed(f"nothing is listening at {url}", remedy=remedy) from error
    except (OSError, http.client.HTTPException) as error:
        raise TargetUnavailable(f"{url} did not respond: {type(error).__name__}: {error}", remedy=remedy) from error
    return Response(status, received.get("Content-Type", ""), content)


def _exchange(
    url: str, timeout_s: float, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[int, http.client.HTTPMessage, bytes]:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)) as connection:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.headers, response.read()
