"""Plain processes in the place of containers, where no container runtime is: the same command, no isolation."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from likewise.targets.sagemaker.emulator.runner import ImageNotFound, Launch, NotStarted

CAUTION = (
    "no container is run: a process of this Python stands in for the image, so nothing is rehearsed of the image "
    "itself, of its file system, its user or its network"
)
SERVE = (sys.executable, "-m", "likewise.container", "serve")


class ProcessContainer:
    """A process with the environment of the container, and not that of this process."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str], port: int) -> None:
        self._address = ("127.0.0.1", port)
        with tempfile.NamedTemporaryFile(prefix="likewise-rehearsal-", suffix=".log", delete=False) as log:
            self._log = Path(log.name)
            try:
                self._process = subprocess.Popen(
                    command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            except OSError as error:
                self._log.unlink()
                raise NotStarted(str(error)) from error
        self._last: str | None = None

    def connect(self, timeout_s: float) -> socket.socket:
        return socket.create_connection(self._address, timeout_s)

    def exit_code(self) -> int | None:
        return self._process.poll()

    def log(self) -> str:
        return self._last if self._last is not None else self._log.read_text(errors="replace")

    def stop(self, grace_s: float) -> None:
        self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._last is None:
            self._last = self._log.read_text(errors="replace")
            self._log.unlink()


class ProcessRunner:
    """images: the environment of each image that is there, such as `{"name:tag": {"LIKEWISE_BUNDLE": "/bundle"}}`.

    every: that of any other image; None where there is no other.
    """

    caution: str | None = CAUTION

    def __init__(
        self,
        images: Mapping[str, Mapping[str, str]],
        command: tuple[str, ...] = SERVE,
        *,
        every: Mapping[str, str] | None = None,
    ) -> None:
        self._images = images
        self._command = command
        self._every = every

    def pull(self, image: str) -> None:
        self._environment_of(image)

    def start(self, launch: Launch) -> ProcessContainer:
        port = _free_port()
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            **self._environment_of(launch.image),
            **launch.environment,
            "LIKEWISE_HOST": "127.0.0.1",
            "LIKEWISE_MODEL_DIR": str(launch.model_dir or "/nonexistent"),
            "SAGEMAKER_BIND_TO_PORT": str(port),
        }
        return ProcessContainer(self._command, environment, port)

    def _environment_of(self, image: str) -> Mapping[str, str]:
        environment = self._images.get(image, self._every)
        if environment is None:
            raise ImageNotFound("no process stands in for it")
        return environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
