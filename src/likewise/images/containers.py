"""Loads, runs and stops images of the store with Docker or Podman, whichever is available."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import IO

from likewise.core.errors import DeployFailed, LikewiseError, TargetUnavailable, WrongUsage
from likewise.core.proxies import OPENER
from likewise.images.build import PORT
from likewise.images.export import for_platform, write_archive
from likewise.images.oci import Descriptor, local_name, platform_named
from likewise.images.store import Store

PROGRAMS = ("docker", "podman")
COMMAND_TIMEOUT_S = 10.0
LOAD_TIMEOUT_S = 600.0
DRAIN_S = 30  # grace period for stopping a container, longer than the server's own
POLL_S = 0.05
_VERSION_FORMAT = {"docker": "{{.ServerVersion}}", "podman": "{{.Version.Version}}"}


@dataclass(frozen=True, slots=True)
class ContainerEngine:
    """Docker or Podman. program: the command. version: that of its service."""

    program: str
    version: str


@dataclass(frozen=True, slots=True)
class Running:
    """A running container that serves at `url`."""

    engine: ContainerEngine
    name: str
    url: str
    seconds: float

    @property
    def stop_line(self) -> str:
        """The shell command that removes the container."""
        return f"{self.engine.program} rm --force --time {DRAIN_S} {self.name}"

    def alive(self) -> bool:
        """Whether the container is still running."""
        arguments = ["container", "inspect", "--format", "{{.State.Running}}", self.name]
        return _run(self.engine.program, *arguments).stdout.strip() == "true"

    def stop(self) -> None:
        """Stop the container after its requests in flight, and remove it."""
        timeout_s = DRAIN_S + COMMAND_TIMEOUT_S
        _run(self.engine.program, "stop", "--time", str(DRAIN_S), self.name, timeout_s=timeout_s)
        _run(self.engine.program, "rm", "--force", self.name, timeout_s=timeout_s)

    def log(self) -> str:
        """The container's last log lines."""
        completed = _run(self.engine.program, "logs", "--tail", "20", self.name)
        return (completed.stdout + completed.stderr).strip()


def find_engine(program: str | None = None) -> ContainerEngine:
    """The named engine, else the first that is available; raises TargetUnavailable with the error of each."""
    if program is not None and program not in PROGRAMS:
        raise WrongUsage(f"unknown container engine {program!r}", remedy=f"use one of: {', '.join(PROGRAMS)}")
    errors = []
    for each in (program,) if program else PROGRAMS:
        if shutil.which(each) is None:
            errors.append(f"{each} is not installed")
            continue
        completed = _run(each, "info", "--format", _VERSION_FORMAT[each])
        version = completed.stdout.strip()
        if completed.returncode == 0 and version:
            return ContainerEngine(each, version)
        output = (completed.stderr or completed.stdout).strip()[-300:]
        errors.append(f"{each}: {output or 'its service does not respond'}")
    raise TargetUnavailable(
        f"no container engine is available: {'; '.join(errors)}", remedy="install Podman, or install and start Docker"
    )


def load(store: Store, name: str, engine: ContainerEngine) -> str:
    """Load the image into `engine` if missing; returns its name there. Raises InputNotFound, DeployFailed."""
    platform = str(platform_named(_machine(engine)))
    image = for_platform(store, store.find(name), platform)
    wanted_id = str(Descriptor.parse(store.document(image)["config"]).digest)
    alias = _name_in_engine(name, engine)
    loaded_id = _run(engine.program, "image", "inspect", "--format", "{{.Id}}", alias).stdout.strip()
    if loaded_id.removeprefix("sha256:") == wanted_id.removeprefix("sha256:") or loaded_id == image.digest:
        return alias
    layers = store.document(Descriptor.parse(store.document(image)["config"]))["rootfs"]["diff_ids"]
    error: str | None = ""
    for skip in sorted({_present_layers(engine, layers), 0}, reverse=True):  # if that fails, send all layers
        error = _load(engine, partial(write_archive, store, name, platform, alias=alias, skip=skip))
        if error is None:
            return alias
    raise DeployFailed(f"{engine.program} cannot load {name}: {error}", remedy="see the output of the command")


def _load(engine: ContainerEngine, write: Callable[[IO[bytes]], None]) -> str | None:
    """Stream the archive into the engine's `load`; returns its output if that fails, else None."""
    command = [engine.program, "load", "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdin is not None  # noqa: S101  for mypy: stdin is a pipe
        with contextlib.suppress(BrokenPipeError):  # the command's output has the reason
            write(child.stdin)
            child.stdin.close()
        output = (child.stdout.read() if child.stdout else b"").decode(errors="replace")
    return None if child.returncode == 0 else output.strip()[-500:]


def _present_layers(engine: ContainerEngine, layers: Sequence[str]) -> int:
    """How many of the first layers (`diff_ids`) Docker has from an image of Likewise; 0 for Podman."""
    if engine.program != "docker":
        return 0
    images = _run(
        engine.program, "image", "ls", "--no-trunc", "--quiet", "--filter", "label=likewise.bundle"
    ).stdout.split()
    if not images:
        return 0
    output = _run(engine.program, "image", "inspect", "--format", "{{json .RootFS.Layers}}", *set(images)).stdout
    return max((_common_prefix(layers, json.loads(line)) for line in output.splitlines()), default=0)


def _common_prefix(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of their common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def default_network(engine: ContainerEngine) -> str | None:
    """`host` if this machine has no network for containers, else None, for the engine's own."""
    own = {"docker": "bridge", "podman": "podman"}[engine.program]
    return None if _run(engine.program, "network", "inspect", own).returncode == 0 else "host"


def start(
    engine: ContainerEngine,
    image: str,
    port: int,
    *,
    network: str | None = None,
    options: Sequence[str] = (),
    wait_s: float = 120.0,
) -> Running:
    """Run a loaded image on `port` of localhost, read-only and without capabilities; returns when it is ready.

    network: `host` if containers cannot have their own network. options: extra arguments of the engine's `run`.
    Raises DeployFailed with the last log lines if it does not become ready; the container is removed then.
    """
    name = f"likewise-{secrets.token_hex(4)}"
    command = ["run", "--detach", "--name", name, "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    if network == "host":
        command += ["--network=host", f"--env=LIKEWISE_PORT={port}", "--env=LIKEWISE_HOST=127.0.0.1"]
    else:
        command += [f"--publish=127.0.0.1:{port}:{PORT}", *([f"--network={network}"] if network else [])]
    started = time.perf_counter()
    running = Running(engine, name, f"http://127.0.0.1:{port}", 0.0)
    try:
        completed = _run(engine.program, *command, *options, image, timeout_s=LOAD_TIMEOUT_S)
        if completed.returncode != 0:
            why = completed.stderr.strip()[-500:]
            remedy = remedy_for(why) or "see the output of the command"
            raise DeployFailed(f"{engine.program} cannot run {image}: {why}", remedy=remedy)
        _wait_until_ready(running, started + wait_s)
    except BaseException:
        running.stop()
        raise
    return Running(engine, name, running.url, time.perf_counter() - started)


def remedy_for(message: str) -> str:
    """The remedy for an error message of the engine that does not state one; empty if it is not known."""
    if "rlimit" not in message:
        return ""
    file = "~/.config/containers/containers.conf" if os.geteuid() else "/etc/containers/containers.conf"
    return (
        f"let containers have limits that your user may set: in {file}, under [containers], set "
        'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]'
    )


def _wait_until_ready(running: Running, deadline: float) -> None:
    while not is_ready(running.url, COMMAND_TIMEOUT_S):
        if not running.alive():
            raise _failed(running, "exited")
        if time.perf_counter() > deadline:
            raise _failed(running, "did not become ready in time")
        time.sleep(POLL_S)


def _failed(running: Running, failure: str) -> LikewiseError:
    return DeployFailed(
        f"the container {failure}; its last log lines: {running.log()[-2000:]}", remedy="see the container's log"
    )


def is_ready(url: str, timeout_s: float) -> bool:
    """Whether the service at `url` on localhost reports that it is ready."""
    try:
        with OPENER.open(f"{url}/ready", timeout=timeout_s) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _machine(engine: ContainerEngine) -> str:
    template = {"docker": "{{.Architecture}}", "podman": "{{.Host.Arch}}"}[engine.program]
    return _run(engine.program, "info", "--format", template).stdout.strip()


def _name_in_engine(name: str, engine: ContainerEngine) -> str:
    """Podman prefixes names without a registry with `localhost/`."""
    parsed = local_name(name)
    return str(parsed) if parsed.registry or engine.program != "podman" else f"localhost/{parsed}"


def _run(program: str, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run one command without a shell; a timeout is reported as exit code 1."""
    try:
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([program], 1, "", f"no response within {timeout_s:.0f} s")
