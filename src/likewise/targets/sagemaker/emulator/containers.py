"""Docker and Podman by argument lists: a container as SageMaker starts it, read-only and without a network.

Without a network nothing reaches the container's port but who stands in its network namespace: the connection is opened
there (Linux, as root). Elsewhere the port is published on loopback, and the network is not cut.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

PORT = 8080
PATIENCE_S = 30.0
PULL_S = 900.0
CLONE_NEWNET = 0x40000000  # linux/sched.h
_OPEN = (
    "the container's network is not cut off: that needs Linux and root, so what it reaches here it may not reach there"
)


class ImageNotFound(Exception):
    """The registry has no such image, or does not give it; the text says why."""


class NotStarted(Exception):
    """The container could not be started; the text says why."""


class ContainerRunner:
    """program: `docker` or `podman` and its global options.  cautions: what a rehearsal with it does not show."""

    def __init__(self, program: Sequence[str]) -> None:
        self._program = tuple(program)
        self._cut = _may_enter()
        self.cautions: tuple[str, ...] = () if self._cut else (_OPEN,)

    def pull(self, image: str) -> None:
        """From its registry; ImageNotFound."""
        command = ["pull", *self._plain_http(image), "--", image]
        done = run([*self._program, *command], PULL_S)
        if done.returncode != 0:
            raise ImageNotFound(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason is given")

    def start(self, image: str, environment: Mapping[str, str], model_dir: Path | None) -> Container:
        """`serve` in a new container of a pulled image; NotStarted.

        model_dir: what stands at /opt/ml/model, read-only; None for nothing.
        """
        command = ["run", "--detach", "--read-only", "--tmpfs", "/tmp", *self._network()]  # noqa: S108
        for name, value in environment.items():
            command += ["--env", f"{name}={value}"]
        if model_dir is not None:
            command += ["--volume", f"{model_dir}:/opt/ml/model:ro"]
        done = run([*self._program, *command, "--", image, "serve"], PATIENCE_S)
        if done.returncode != 0:
            raise NotStarted(done.stderr.strip()[-500:])
        return Container(self._program, done.stdout.strip().splitlines()[-1], cut=self._cut)

    def _network(self) -> list[str]:
        return ["--network", "none"] if self._cut else ["--publish", f"127.0.0.1::{PORT}"]

    def _plain_http(self, image: str) -> list[str]:
        """Docker speaks plain HTTP to loopback by itself, Podman where it is told."""
        loopback = image.startswith(("127.0.0.1:", "localhost:"))
        return ["--tls-verify=false"] if loopback and Path(self._program[0]).name == "podman" else []


class Container:
    """One that was started, by its id."""

    def __init__(self, program: Sequence[str], name: str, *, cut: bool) -> None:
        self._program = tuple(program)
        self._name = name
        self._cut = cut
        self._last: str | None = None

    def connect(self, timeout_s: float) -> socket.socket:
        """A connection to its port; OSError."""
        if not self._cut:
            return socket.create_connection(self._published, timeout_s)
        with _network_of(self._pid):
            return socket.create_connection(("127.0.0.1", PORT), timeout_s)

    def exit_code(self) -> int | None:
        """None while it runs."""
        running, code = self._inspected("{{.State.Running}} {{.State.ExitCode}}").split()
        return None if running == "true" else int(code)

    def log(self) -> str:
        """All that it wrote, also after `stop`."""
        if self._last is not None:
            return self._last
        done = run([*self._program, "logs", self._name], PATIENCE_S)
        return done.stdout + done.stderr

    def stop(self, grace_s: float) -> None:
        """SIGTERM, and after `grace_s` seconds SIGKILL; nothing of it is left."""
        if self._last is None:
            run([*self._program, "stop", "--time", str(round(grace_s)), self._name], grace_s + PATIENCE_S)
            self._last = self.log()
            run([*self._program, "rm", "--force", self._name], PATIENCE_S)

    @cached_property
    def _published(self) -> tuple[str, int]:
        host, _, port = self._said("port", self._name, str(PORT)).splitlines()[0].rpartition(":")
        return host, int(port)

    @cached_property
    def _pid(self) -> int:
        return int(self._inspected("{{.State.Pid}}"))

    def _inspected(self, template: str) -> str:
        return self._said("inspect", "--format", template, self._name)

    def _said(self, *command: str) -> str:
        done = run([*self._program, *command], PATIENCE_S)
        if done.returncode != 0 or not done.stdout.strip():
            raise ConnectionError(f"{self._program[0]} {command[0]}: {done.stderr.strip()[-300:]}")
        return done.stdout.strip()


def run(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Its exit code and what it said; a program that does not end in time has failed."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _may_enter() -> bool:
    return os.path.exists("/proc/self/ns/net") and os.geteuid() == 0


@contextmanager
def _network_of(pid: int) -> Iterator[None]:
    """This thread stands in the network of the process `pid`; a socket that it opens there stays there."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path: str) -> None:
        with open(path, "rb") as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), path)

    with open("/proc/thread-self/ns/net", "rb") as own:
        enter(f"/proc/{pid}/ns/net")
        try:
            yield
        finally:
            libc.setns(own.fileno(), CLONE_NEWNET)
