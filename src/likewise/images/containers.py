"""Docker or Podman, whichever answers: loading an image of the store, running it, stopping it."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import IO

from likewise.core.errors import DeployFailed, LikewiseError, TargetUnavailable, WrongUsage
from likewise.images.build import PORT
from likewise.images.export import for_platform, write_archive
from likewise.images.oci import Descriptor, local_name, platform_named
from likewise.images.store import Store

PROGRAMS = ("docker", "podman")
PATIENCE_S = 10.0  # for a question
LOADING_S = 600.0
DRAIN_S = 30  # seconds that a container may take to stop: more than the server's own
LOOK_S = 0.05
_ASK = {"docker": "{{.ServerVersion}}", "podman": "{{.Version.Version}}"}


@dataclass(frozen=True, slots=True)
class ContainerEngine:
    """A program that runs containers. machine: its CPU's platform. version: its service's."""

    program: str
    version: str


@dataclass(frozen=True, slots=True)
class Running:
    """A container that answers at `url`."""

    engine: ContainerEngine
    name: str
    url: str
    seconds: float

    @property
    def stop_line(self) -> str:
        """What a user would type."""
        return f"{self.engine.program} rm --force --time {DRAIN_S} {self.name}"

    def alive(self) -> bool:
        """Whether it still runs."""
        asked = ["container", "inspect", "--format", "{{.State.Running}}", self.name]
        return _ask(self.engine.program, *asked).stdout.strip() == "true"

    def stop(self) -> None:
        """Let it answer what it has, and take it away."""
        _ask(self.engine.program, "stop", "--time", str(DRAIN_S), self.name, patience=DRAIN_S + PATIENCE_S)
        _ask(self.engine.program, "rm", "--force", self.name, patience=DRAIN_S + PATIENCE_S)

    def log(self) -> str:
        """The last lines that it wrote."""
        done = _ask(self.engine.program, "logs", "--tail", "20", self.name)
        return (done.stdout + done.stderr).strip()


def find_engine(program: str | None = None) -> ContainerEngine:
    """The one that is named, else the first that answers; TargetUnavailable, with what each of them said."""
    if program is not None and program not in PROGRAMS:
        raise WrongUsage(f"there is no {program!r}", remedy=f"name one of: {', '.join(PROGRAMS)}")
    told = []
    for each in (program,) if program else PROGRAMS:
        if shutil.which(each) is None:
            told.append(f"{each} is not installed")
            continue
        done = _ask(each, "info", "--format", _ASK[each])
        version = done.stdout.strip()
        if done.returncode == 0 and version:
            return ContainerEngine(each, version)
        told.append(f"{each}: {(done.stderr or done.stdout).strip()[-300:] or 'its service does not answer'}")
    raise TargetUnavailable(
        f"nothing here runs containers: {'; '.join(told)}", remedy="install Podman, or install and start Docker"
    )


def load(store: Store, name: str, engine: ContainerEngine) -> str:
    """See that `engine` has the image; returns what it calls it. Raises InputNotFound, DeployFailed."""
    platform = str(platform_named(_machine(engine)))
    image = for_platform(store, store.find(name), platform)
    wanted = str(Descriptor.parse(store.document(image)["config"]).digest)
    called = _called(name, engine)
    there = _ask(engine.program, "image", "inspect", "--format", "{{.Id}}", called).stdout.strip()
    if there.removeprefix("sha256:") == wanted.removeprefix("sha256:") or there == image.digest:
        return called
    layers = store.document(Descriptor.parse(store.document(image)["config"]))["rootfs"]["diff_ids"]
    problem: str | None = ""
    for held in sorted({_held(engine, layers), 0}, reverse=True):  # all of it, where it does not load without some
        problem = _load(engine, partial(write_archive, store, name, platform, called=called, held=held))
        if problem is None:
            return called
    raise DeployFailed(f"{engine.program} does not load {name}: {problem}", remedy="its words say why")


def _load(engine: ContainerEngine, write: Callable[[IO[bytes]], None]) -> str | None:
    """What it says against it; None where it has loaded the archive."""
    command = [engine.program, "load", "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdin is not None  # noqa: S101  it is a pipe
        with contextlib.suppress(BrokenPipeError):  # it says why below
            write(child.stdin)
            child.stdin.close()
        said = (child.stdout.read() if child.stdout else b"").decode(errors="replace")
    return None if child.returncode == 0 else said.strip()[-500:]


def _held(engine: ContainerEngine, layers: Sequence[str]) -> int:
    """How many of the first layers (`diff_ids`) an image of ours has brought there; Docker needs no second copy."""
    if engine.program != "docker":
        return 0
    images = _ask(
        engine.program, "image", "ls", "--no-trunc", "--quiet", "--filter", "label=likewise.bundle"
    ).stdout.split()
    if not images:
        return 0
    said = _ask(engine.program, "image", "inspect", "--format", "{{json .RootFS.Layers}}", *set(images)).stdout
    return max((_common(layers, json.loads(line)) for line in said.splitlines()), default=0)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many they begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def start(
    engine: ContainerEngine,
    image: str,
    port: int,
    *,
    network: str | None = None,
    more: Sequence[str] = (),
    wait_s: float = 120.0,
) -> Running:
    """Run a loaded image on a read-only disk, without rights, on `port` of this machine; returns when it is ready.

    network: `host` where containers have no network of their own. more: options for the program's `run`.
    Raises DeployFailed, with its last lines, where it does not become ready; nothing of it is left then.
    """
    name = f"likewise-{secrets.token_hex(4)}"
    command = ["run", "--detach", "--name", name, "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    if network == "host":
        command += ["--network=host", f"--env=LIKEWISE_PORT={port}", "--env=LIKEWISE_HOST=127.0.0.1"]
    else:
        command += [f"--publish=127.0.0.1:{port}:{PORT}", *([f"--network={network}"] if network else [])]
    begun = time.perf_counter()
    done = _ask(engine.program, *command, *more, image, patience=LOADING_S)
    running = Running(engine, name, f"http://127.0.0.1:{port}", 0.0)
    if done.returncode != 0:
        running.stop()
        raise DeployFailed(
            f"{engine.program} does not run {image}: {done.stderr.strip()[-500:]}", remedy="its words say why"
        )
    try:
        _await_ready(running, begun + wait_s)
    except BaseException:
        running.stop()
        raise
    return Running(engine, name, running.url, time.perf_counter() - begun)


def _await_ready(running: Running, until: float) -> None:
    while not is_ready(running.url, PATIENCE_S):
        if not running.alive():
            raise _failed(running, "ended")
        if time.perf_counter() > until:
            raise _failed(running, "is not ready in time")
        time.sleep(LOOK_S)


def _failed(running: Running, how: str) -> LikewiseError:
    return DeployFailed(f"the container {how}; its last lines: {running.log()[-2000:]}", remedy="they say why")


def is_ready(url: str, patience_s: float) -> bool:
    """Whether the service at `url`, of this machine, says that it is ready."""
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=patience_s) as answer:  # noqa: S310  our own loopback
            return bool(answer.status == 200)
    except OSError:
        return False


def _machine(engine: ContainerEngine) -> str:
    asked = {"docker": "{{.Architecture}}", "podman": "{{.Host.Arch}}"}[engine.program]
    return _ask(engine.program, "info", "--format", asked).stdout.strip()


def _called(name: str, engine: ContainerEngine) -> str:
    """Podman puts a registry before a name that has none; `localhost` is its own for what comes from nowhere."""
    parsed = local_name(name)
    return str(parsed) if parsed.registry or engine.program != "podman" else f"localhost/{parsed}"


def _ask(program: str, *arguments: str, patience: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """One command, no shell; a program that does not answer in time has failed."""
    try:
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([program], 1, "", f"no answer in {patience:.0f} s")
