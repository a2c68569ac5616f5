"""The seam to whatever runs a container, and the HTTP that is spoken to one."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

PORT = 8080


class ImageNotFound(Exception):
    """The registry has no such image, or does not give it; the text says why."""


class NotStarted(Exception):
    """The container could not be started; the text says why."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What SageMaker starts: `IMAGE serve`. model_dir: what stands at /opt/ml/model, read-only; None for nothing."""

    image: str
    environment: Mapping[str, str] = field(default_factory=dict)
    model_dir: Path | None = None


class Container(Protocol):
    """One that was started."""

    def connect(self, timeout_s: float) -> socket.socket:
        """A connection to its port; OSError."""
        ...

    def exit_code(self) -> int | None:
        """None while it runs."""
        ...

    def log(self) -> str:
        """All that it wrote, also after `stop`."""
        ...

    def stop(self, grace_s: float) -> None:
        """SIGTERM, and after `grace_s` seconds SIGKILL; nothing of it is left."""
        ...


class Runner(Protocol):
    """Docker, Podman, or plain processes. caution: what a rehearsal with it does not show, None for nothing."""

    caution: str | None

    def pull(self, image: str) -> None:
        """From its registry; ImageNotFound."""
        ...

    def start(self, launch: Launch) -> Container:
        """`serve` in a new container of a pulled image; NotStarted."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """status, headers (names in lower case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    container: Container,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float,
) -> Reply:
    """One request on a connection of its own.  OSError (TimeoutError where it takes longer), HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout_s)
    try:
        connection.sock = container.connect(timeout_s)
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        said = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, said, response.read())
    finally:
        connection.close()
