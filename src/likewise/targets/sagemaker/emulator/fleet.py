"""From a model to a container that answers its pings, and back to nothing."""

from __future__ import annotations

import http.client
import io
import shutil
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from likewise.targets.sagemaker.emulator.account import Account, Unreadable
from likewise.targets.sagemaker.emulator.containers import PORT, Container, ContainerRunner, ImageNotFound, NotStarted

PING_S = 2.0
LOOK_S = 0.02
GRACE_S = 30.0  # between SIGTERM and SIGKILL
REASON = 1024  # characters of a FailureReason
LINES = 8  # of a container's log


class Unfit(Exception):
    """A container that does not come up; the text is the FailureReason."""


@dataclass(frozen=True, slots=True)
class ContainerResponse:
    """status, headers (names in lower case) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Running:
    """A container that answers, and the folder that stands at /opt/ml/model in it."""

    container: Container
    stream: str
    image: str
    _model_dir: Path | None

    def ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], *, timeout_s: float
    ) -> ContainerResponse:
        """One request on a connection of its own.  OSError (TimeoutError where it takes longer), HTTPException."""
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout_s)
        try:
            connection.sock = self.container.connect(timeout_s)
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            said = {name.lower(): value for name, value in response.getheaders()}
            return ContainerResponse(response.status, said, response.read())
        finally:
            connection.close()

    def stop(self) -> None:
        """What it has accepted is answered first."""
        self.container.stop(GRACE_S)
        if self._model_dir is not None:
            shutil.rmtree(self._model_dir, ignore_errors=True)


class Fleet:
    """Starts containers, and knows those that run.  Thread-safe."""

    def __init__(self, account: Account, runner: ContainerRunner, most_wait_s: float | None) -> None:
        self._account = account
        self._runner = runner
        self._most_wait_s = most_wait_s
        self._lock = threading.Lock()
        self._running: list[Running] = []
        self._over = threading.Event()

    def start(
        self, model: Mapping[str, Any], *, what: str, group: str, stream: str, extra: Mapping[str, str], wait_s: float
    ) -> Running:
        """A container of `model` (as CreateModel has it) that answers its pings within `wait_s` seconds.

        what: how a FailureReason names it.  group, stream: of its log.  Raises Unfit, with nothing left.
        """
        held = model["PrimaryContainer"]
        problem = self._account.role_problem(model["ExecutionRoleArn"])
        if problem is not None:
            raise Unfit(problem)
        self._pull(held["Image"], what)
        folder = self._unpacked(held.get("ModelDataUrl"))
        environment = {**held.get("Environment", {}), **extra}
        try:
            container = self._runner.start(held["Image"], environment, folder)
        except NotStarted as error:
            raise Unfit(f"CannotStartContainerError. The {what} could not be started: {error}"[:REASON]) from error
        running = Running(container, f"{stream}/i-{uuid4().hex[:17]}", held["Image"], folder)
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
        """Gone, its log kept."""
        running.stop()
        with self._lock:
            if running in self._running:
                self._running.remove(running)

    def give_up(self) -> None:
        """From now on none comes up any more."""
        self._over.set()

    def stop_all(self) -> None:
        """Whatever still runs."""
        with self._lock:
            left = list(self._running)
        for running in left:
            self.stop(running)

    def _pull(self, image: str, what: str) -> None:
        try:
            self._runner.pull(image)
        except ImageNotFound as error:
            raise Unfit(
                f"The image {image} of the {what} does not exist or cannot be pulled: {error}"[:REASON]
            ) from error

    def _unpacked(self, url: str | None) -> Path | None:
        if url is None:
            return None
        folder = Path(tempfile.mkdtemp(prefix="likewise-rehearsal-model-"))
        try:
            with tarfile.open(fileobj=io.BytesIO(self._account.read(url)), mode="r:gz") as archive:
                archive.extractall(folder, filter=_readable)  # noqa: S202  it is `data_filter`
        except (Unreadable, tarfile.TarError, zlib.error, OSError, EOFError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise Unfit(f"Failed to download model data from {url}: {error}"[:REASON]) from error
        folder.chmod(0o755)  # whichever user the container has
        return folder

    def _until_ready(self, running: Running, what: str, wait_s: float) -> None:
        until = time.monotonic() + min(wait_s, self._most_wait_s or wait_s)
        while time.monotonic() < until and not self._over.is_set():
            if (code := running.container.exit_code()) is not None:
                raise Unfit(_unready(what, f"The container exited with code {code}.", running))
            try:
                if running.ask("GET", "/ping", None, {}, timeout_s=PING_S).status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass  # not yet
            self._over.wait(LOOK_S)
        raise Unfit(_unready(what, "It answered no /ping with 200 in time.", running))


def _readable(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Nothing outside the folder; readable for whichever user the container has."""
    return tarfile.data_filter(member.replace(mode=0o644, deep=False), folder)


def _unready(what: str, why: str, running: Running) -> str:
    said = f"The {what} did not pass the ping health check. Please check CloudWatch logs for this endpoint. {why}"
    lines = running.container.log().strip().splitlines()[-LINES:]
    told = f"{said} Last lines of its log: " + " | ".join(lines) if lines else said
    return told if len(told) <= REASON else f"{told[: len(said) + 26]}…{told[-(REASON - len(said) - 27) :]}"
