"""Starts the containers of models, waits until they are ready, and stops them."""

from __future__ import annotations

import http.client
import io
import tarfile
import threading
import time
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from likewise.core.scratch import scratch_folder
from likewise.targets.sagemaker.emulator.account import Account, S3Unavailable
from likewise.targets.sagemaker.emulator.containers import PORT, Container, ContainerRunner, ImageNotFound, NotStarted

PING_TIMEOUT_S = 2.0
POLL_S = 0.02
GRACE_S = 30.0  # between SIGTERM and SIGKILL
REASON = 1024  # characters of a FailureReason
LINES = 8  # of a container's log


class StartupFailed(Exception):
    """A container that does not become ready; the text is the FailureReason."""


@dataclass(frozen=True, slots=True)
class ContainerResponse:
    """A response of a container; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Running:
    """A started container.

    stream: its log stream.  _files: removes the folder that is mounted at /opt/ml/model, if there is one.
    """

    container: Container
    stream: str
    image: str
    _files: ExitStack

    def send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], *, timeout_s: float
    ) -> ContainerResponse:
        """Send one request on a new connection.  Raises OSError (TimeoutError after `timeout_s`), HTTPException."""
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout_s)
        try:
            connection.sock = self.container.connect(timeout_s)
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            response_headers = {name.lower(): value for name, value in response.getheaders()}
            return ContainerResponse(response.status, response_headers, response.read())
        finally:
            connection.close()

    def stop(self) -> None:
        """Stop the container, which first completes the requests that it has accepted, and delete its folder."""
        self.container.stop(GRACE_S)
        self._files.close()


class Fleet:
    """Starts containers and keeps track of the running ones.  Thread-safe."""

    def __init__(self, account: Account, runner: ContainerRunner, max_startup_s: float | None) -> None:
        self._account = account
        self._runner = runner
        self._max_startup_s = max_startup_s
        self._lock = threading.Lock()
        self._running: list[Running] = []
        self._aborted = threading.Event()

    def start(
        self, model: Mapping[str, Any], *, what: str, group: str, stream: str, extra: Mapping[str, str], wait_s: float
    ) -> Running:
        """Start a container of `model` and wait up to `wait_s` seconds until it is ready.

        model: parameters of CreateModel.  what: the container in a FailureReason.  group, stream: of its log.
        extra: additional environment variables.  Raises StartupFailed after removing the container.
        """
        definition = model["PrimaryContainer"]
        problem = self._account.role_problem(model["ExecutionRoleArn"])
        if problem is not None:
            raise StartupFailed(problem)
        self._pull(definition["Image"], what)
        environment = {**definition.get("Environment", {}), **extra}
        with ExitStack() as files:
            folder = self._unpacked(definition.get("ModelDataUrl"), files)
            try:
                container = self._runner.start(definition["Image"], environment, folder)
            except NotStarted as error:
                raise StartupFailed(f"CannotStartContainerError. The {what} did not start: {error}"[:REASON]) from error
            running = Running(container, f"{stream}/i-{uuid4().hex[:17]}", definition["Image"], files.pop_all())
        with self._lock:
            self._running.append(running)
        self._account.follow(group, running.stream, container)
        try:
            self._until_ready(running, what, wait_s)
        except BaseException:
            self.stop(running)
            raise
        return running

    def stop(self, running: Running) -> None:
        """Stop and remove a container; its log stays available."""
        running.stop()
        with self._lock:
            if running in self._running:
                self._running.remove(running)

    def abort_startups(self) -> None:
        """Make all pending and future startups fail."""
        self._aborted.set()

    def stop_all(self) -> None:
        """Stop all running containers."""
        with self._lock:
            remaining = list(self._running)
        for running in remaining:
            self.stop(running)

    def _pull(self, image: str, what: str) -> None:
        try:
            self._runner.pull(image)
        except ImageNotFound as error:
            raise StartupFailed(
                f"The image {image} of the {what} does not exist or cannot be pulled: {error}"[:REASON]
            ) from error

    def _unpacked(self, url: str | None, files: ExitStack) -> Path | None:
        if url is None:
            return None
        folder = files.enter_context(scratch_folder("likewise-scratch-rehearsal-"))
        try:
            with tarfile.open(fileobj=io.BytesIO(self._account.read(url)), mode="r:gz") as archive:
                archive.extractall(folder, filter=_readable)  # noqa: S202  it is `data_filter`
        except (S3Unavailable, tarfile.TarError, zlib.error, OSError, EOFError) as error:
            raise StartupFailed(f"Failed to download model data from {url}: {error}"[:REASON]) from error
        folder.chmod(0o755)  # readable for any user of the container
        return folder

    def _until_ready(self, running: Running, what: str, wait_s: float) -> None:
        until = time.monotonic() + min(wait_s, self._max_startup_s or wait_s)
        while time.monotonic() < until and not self._aborted.is_set():
            if (code := running.container.exit_code()) is not None:
                raise StartupFailed(_unready(what, f"The container exited with code {code}.", running))
            try:
                if running.send("GET", "/ping", None, {}, timeout_s=PING_TIMEOUT_S).status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass  # not ready yet
            self._aborted.wait(POLL_S)
        raise StartupFailed(_unready(what, "It did not respond to /ping with 200 in time.", running))


def _readable(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """A tar filter: rejects members outside the folder, and makes files readable for any user of the container."""
    return tarfile.data_filter(member.replace(mode=0o644, deep=False), folder)


def _unready(what: str, why: str, running: Running) -> str:
    text = f"The {what} did not pass the ping health check. Please check CloudWatch logs for this endpoint. {why}"
    lines = running.container.log().strip().splitlines()[-LINES:]
    reason = f"{text} Last lines of its log: " + " | ".join(lines) if lines else text
    return reason if len(reason) <= REASON else f"{reason[: len(text) + 26]}…{reason[-(REASON - len(text) - 27) :]}"
