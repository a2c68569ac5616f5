"""Processes that replace containers: the same command, without isolation."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.processes import free_port

from likewise.targets.sagemaker.emulator.containers import ImageNotFound, NotStarted

SERVE = (sys.executable, "-m", "likewise.container", "serve")


class ProcessContainer:
    """A process that replaces a container; it has the container's environment, not that of this process."""

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
        self._final_log: str | None = None

    def connect(self, timeout_s: float) -> socket.socket:
        return socket.create_connection(self._address, timeout_s)

    def exit_code(self) -> int | None:
        return self._process.poll()

    def log(self) -> str:
        return self._final_log if self._final_log is not None else self._log.read_text(errors="replace")

    def stop(self, grace_s: float) -> None:
        self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._final_log is None:
            self._final_log = self._log.read_text(errors="replace")
            self._log.unlink()


class ProcessRunner:
    """Runs processes. images: the environment of each image, such as `{"name:tag": {"LIKEWISE_BUNDLE": "/bundle"}}`."""

    def __init__(self, images: Mapping[str, Mapping[str, str]], command: tuple[str, ...] = SERVE) -> None:
        self._images = images
        self._command = command

    def pull(self, image: str) -> None:
        if image not in self._images:
            raise ImageNotFound("no process is defined for this image")

    def start(self, image: str, environment: Mapping[str, str], model_dir: Path | None) -> ProcessContainer:
        port = free_port()
        full_environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            **self._images[image],
            **environment,
            "LIKEWISE_HOST": "127.0.0.1",
            "LIKEWISE_MODEL_DIR": str(model_dir or "/nonexistent"),
            "SAGEMAKER_BIND_TO_PORT": str(port),
        }
        return ProcessContainer(self._command, full_environment, port)
