"""Dedicated container engines for tests: a Docker daemon, which leaves nothing behind, and Podman."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.machine import cannot_test, need_program

TIMEOUT_S = 120.0  # a daemon usually starts or stops within two seconds
POLL_S = 0.05
KEPT = "layers"
"""The tag of images that stay in the daemon as long as it runs, so that their layers are loaded only once."""


@dataclass(frozen=True)
class Docker:
    """A Docker daemon at the address `host`; a call runs a command of its client."""

    host: str

    @property
    def program(self) -> tuple[str, ...]:
        """The client's command, with the daemon's address."""
        return ("docker", "-H", self.host)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run a command that must succeed; returns its stdout."""
        done = subprocess.run([*self.program, *arguments], input=stdin, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()

    def inspected(self, container: str) -> dict[str, Any]:
        """The output of `docker container inspect`."""
        description: dict[str, Any] = json.loads(self("container", "inspect", container))[0]
        return description

    def left(self) -> list[str]:
        """All containers, volumes and images of deployments."""
        label = "label=likewise.deployment"
        containers = self("container", "ls", "--all", "--filter", label, "--format", "container {{.Names}}")
        volumes = self("volume", "ls", "--filter", label, "--format", "volume {{.Name}}")
        images = self("image", "ls", "--filter", "label=likewise.bundle", "--format", "{{.ID}} {{.Tag}}")
        ids = sorted({line.split()[0] for line in images.splitlines() if not line.endswith(f" {KEPT}")})
        return [*containers.splitlines(), *volumes.splitlines(), *(f"image {each}" for each in ids)]

    def remove_images(self) -> None:
        """Remove the images without the tag KEPT, and all other tags of those with it."""
        listed = self(
            "image", "ls", "--filter", "label=likewise.bundle", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"
        )
        images = [line.split(" ", 1) for line in listed.splitlines()]
        kept = {image for image, name in images if name.endswith(f":{KEPT}")}
        others = {name for image, name in images if image in kept and not name.endswith((f":{KEPT}", ":<none>"))}
        for each in sorted({image for image, _ in images if image not in kept} | others):
            self("image", "rm", "--force", each)


@contextmanager
def docker_daemon() -> Iterator[Docker]:
    """A daemon without networks; its processes, mounts and folders are removed afterwards."""
    program = need_program("dockerd", "docker.io")
    need_program("docker", "docker.io")
    with TemporaryDirectory(prefix="lwd-") as name:  # a short path, because it contains sockets
        docker, log = Docker(f"unix://{name}/s"), Path(name, "log")
        command = [program, "--iptables=false", "--ip6tables=false", "--bridge=none", "-H", docker.host]
        command += ["-p", f"{name}/pid", "--data-root", f"{name}/data", "--exec-root", f"{name}/exec"]
        with log.open("w") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as daemon:
            try:
                _await(docker, daemon, log)
                yield docker
            finally:
                daemon.terminate()
                daemon.wait(TIMEOUT_S)
                _unmount(Path(name))


def _await(docker: Docker, daemon: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + TIMEOUT_S
    while subprocess.run([*docker.program, "info"], capture_output=True, timeout=60).returncode != 0:
        if daemon.poll() is not None:
            cannot_test("containers", f"Docker's daemon does not start here: {log.read_text()[-500:]}")
        assert time.monotonic() < end, log.read_text()[-2000:]
        time.sleep(POLL_S)


def _unmount(folder: Path) -> None:
    """Unmount what a daemon has left mounted, innermost first: a folder that contains a mount cannot be removed."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((each for each in mounts if each.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", mount], capture_output=True)


@contextmanager
def podman() -> Iterator[Mapping[str, str]]:
    """Environment variables that give Podman dedicated folders, and runc, which works on more machines than crun."""
    need_program("podman", "podman")
    need_program("runc", "runc")
    with TemporaryDirectory(prefix="lwp-") as name:  # a short path: Podman rejects a long one
        engine, storage = Path(name, "containers.conf"), Path(name, "storage.conf")
        limits = '["nofile=1024:1024", "nproc=1024:1024"]'  # low enough for machines with low limits
        engine.write_text(f'[containers]\ndefault_ulimits = {limits}\n[engine]\nruntime = "runc"\n')
        storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{name}/root"\nrunroot = "{name}/run"\n')
        config = {"CONTAINERS_CONF": str(engine), "CONTAINERS_STORAGE_CONF": str(storage)}
        try:
            yield {**os.environ, **config}
        finally:
            _unmount(Path(name))
