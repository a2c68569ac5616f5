"""Runs containers by Docker or Podman as SageMaker starts them: read-only and without a network.

Without a network, the container's port can only be reached from its network namespace, so connections are opened there
(Linux, as root).  On other systems the port is published on loopback, and the container has a network.
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
COMMAND_TIMEOUT_S = 30.0
PULL_TIMEOUT_S = 900.0
CLONE_NEWNET = 0x40000000  # linux/sched.h
_OPEN_NETWORK = (
    "the container has network access, because isolating it needs Linux and root: what it connects to here may not be "
    "reachable on SageMaker"
)


OWNER = "likewise.rehearsal"  # a label: host, process id and start time of the emulator


class ImageNotFound(Exception):
    """The image does not exist or cannot be pulled; the message has the reason."""


class NotStarted(Exception):
    """The container could not be started; the message has the reason."""


class ContainerRunner:
    """Starts containers.

    program: `docker` or `podman` and its global options.  cautions: known differences from SageMaker.
    """

    def __init__(self, program: Sequence[str]) -> None:
        self._program = tuple(program)
        self._isolated = _can_enter_namespaces()
        self.cautions: tuple[str, ...] = () if self._isolated else (_OPEN_NETWORK,)

    def remove_abandoned(self) -> None:
        """Remove the containers of emulators on this machine whose process was killed."""
        listed = run([*self._program, "ps", "--all", "--quiet", "--filter", f"label={OWNER}"], COMMAND_TIMEOUT_S)
        for name in listed.stdout.split():
            template = f'{{{{index .Config.Labels "{OWNER}"}}}}'
            owner = run([*self._program, "inspect", "--format", template, name], COMMAND_TIMEOUT_S).stdout.strip()
            host, _, process = owner.rpartition(":")
            if host == os.uname().nodename and not _is_running(process):
                run([*self._program, "rm", "--force", name], COMMAND_TIMEOUT_S)

    def pull(self, image: str) -> None:
        """Pull the image from its registry; raises ImageNotFound."""
        command = ["pull", *self._plain_http(image), "--", image]
        done = run([*self._program, *command], PULL_TIMEOUT_S)
        if done.returncode != 0:
            raise ImageNotFound(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason is given")

    def start(self, image: str, environment: Mapping[str, str], model_dir: Path | None) -> Container:
        """Run `serve` in a new container of a pulled image; raises NotStarted.

        model_dir: mounted at /opt/ml/model, read-only; None to mount nothing.
        """
        owner = f"{OWNER}={os.uname().nodename}:{_process(os.getpid())}"
        command = ["run", "--detach", "--label", owner, "--read-only", "--tmpfs", "/tmp", *self._network()]  # noqa: S108
        for name, value in environment.items():
            command += ["--env", f"{name}={value}"]
        if model_dir is not None:
            command += ["--volume", f"{model_dir}:/opt/ml/model:ro"]
        done = run([*self._program, *command, "--", image, "serve"], COMMAND_TIMEOUT_S)
        if done.returncode != 0:
            raise NotStarted(done.stderr.strip()[-500:])
        return Container(self._program, done.stdout.strip().splitlines()[-1], isolated=self._isolated)

    def _network(self) -> list[str]:
        return ["--network", "none"] if self._isolated else ["--publish", f"127.0.0.1::{PORT}"]

    def _plain_http(self, image: str) -> list[str]:
        """Options for plain HTTP to a registry on loopback: Podman needs one, Docker does not."""
        loopback = image.startswith(("127.0.0.1:", "localhost:"))
        return ["--tls-verify=false"] if loopback and Path(self._program[0]).name == "podman" else []


class Container:
    """A started container, by its id."""

    def __init__(self, program: Sequence[str], name: str, *, isolated: bool) -> None:
        self._program = tuple(program)
        self._name = name
        self._isolated = isolated
        self._final_log: str | None = None

    def connect(self, timeout_s: float) -> socket.socket:
        """A connection to the container's port; raises OSError."""
        if not self._isolated:
            return socket.create_connection(self._published, timeout_s)
        with _network_of(self._pid):
            return socket.create_connection(("127.0.0.1", PORT), timeout_s)

    def exit_code(self) -> int | None:
        """The exit code, None while the container runs."""
        running, code = self._inspect("{{.State.Running}} {{.State.ExitCode}}").split()
        return None if running == "true" else int(code)

    def log(self) -> str:
        """Everything the container has written; also available after `stop`."""
        if self._final_log is not None:
            return self._final_log
        done = run([*self._program, "logs", self._name], COMMAND_TIMEOUT_S)
        return done.stdout + done.stderr

    def stop(self, grace_s: float) -> None:
        """Stop it by SIGTERM, after `grace_s` seconds by SIGKILL, and remove it."""
        if self._final_log is None:
            run([*self._program, "stop", "--time", str(round(grace_s)), self._name], grace_s + COMMAND_TIMEOUT_S)
            self._final_log = self.log()
            run([*self._program, "rm", "--force", self._name], COMMAND_TIMEOUT_S)

    @cached_property
    def _published(self) -> tuple[str, int]:
        host, _, port = self._output("port", self._name, str(PORT)).splitlines()[0].rpartition(":")
        return host, int(port)

    @cached_property
    def _pid(self) -> int:
        return int(self._inspect("{{.State.Pid}}"))

    def _inspect(self, template: str) -> str:
        return self._output("inspect", "--format", template, self._name)

    def _output(self, *command: str) -> str:
        done = run([*self._program, *command], COMMAND_TIMEOUT_S)
        if done.returncode != 0 or not done.stdout.strip():
            raise ConnectionError(f"{self._program[0]} {command[0]}: {done.stderr.strip()[-300:]}")
        return done.stdout.strip()


def run(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command and return its exit code and output; exit code 1 if it cannot be run or times out."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _process(pid: int) -> str:
    """The process id and, on Linux, when the process started, since ids are reused."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return str(pid)
    return f"{pid}.{stat.rpartition(')')[2].split()[19]}"


def _is_running(process: str) -> bool:
    """Whether the process with this result of `_process` still exists; True if that is unknown."""
    pid = process.partition(".")[0]
    if not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return _process(int(pid)) == process


def _can_enter_namespaces() -> bool:
    return os.path.exists("/proc/self/ns/net") and os.geteuid() == 0


@contextmanager
def _network_of(pid: int) -> Iterator[None]:
    """Move this thread to the network namespace of process `pid`; sockets opened inside the block remain there."""
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
