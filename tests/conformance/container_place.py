"""A place to deploy containers to: a Docker daemon of the test's own, a base, and wheels enough for the models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from platformdirs import user_cache_path

from likewise.bundles.open import open_bundle
from likewise.core.digests import sha256_json
from likewise.core.spec import ModelSpec
from likewise.images.base import open_base
from likewise.images.build import ImageOptions, build_image
from likewise.images.containers import find_engine, load
from likewise.images.oci import PLATFORMS
from likewise.images.pins import pins
from likewise.images.store import Store
from likewise.images.wheels import Wheels, lock_text
from likewise.testing.models import upper_bundle
from likewise.testing.targets import TargetUnderTest

PATIENCE = 120  # seconds; a daemon needs two
LEAN = ("likewise", "mlflow-skinny", "pandas", "cloudpickle")
"""What a pyfunc needs of MLflow; the whole of it would take minutes to pack."""
TORCH = ("torch", "transformers", "safetensors")
KEEPING = "layers"  # a tag
KEPT = user_cache_path("likewise-test-base")


@dataclass(frozen=True)
class Daemon:
    """A Docker daemon; variable: what says where it is."""

    host: str

    def docker(self, *arguments: str) -> str:
        """What the command wrote; it must not fail."""
        done = subprocess.run(["docker", "-H", self.host, *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def left(self) -> list[str]:
        """Containers, volumes and images of deployments, but for the image that keeps the layers."""
        label = "label=likewise.deployment"
        found = self.docker("container", "ls", "--all", "--filter", label, "--format", "container {{.Names}}")
        volumes = self.docker("volume", "ls", "--filter", label, "--format", "volume {{.Name}}")
        images = self.docker("image", "ls", "--filter", "label=likewise.bundle", "--format", "image {{.ID}} {{.Tag}}")
        named = [line for line in images.splitlines() if not line.endswith(f" {KEEPING}")]
        return [*found.splitlines(), *volumes.splitlines(), *named]

    def keep_layers(self, folder: Path, requirements: tuple[str, ...]) -> None:
        """Load an image that holds base and environment of these requirements: a deletion of others leaves them."""
        bundle = open_bundle(upper_bundle(folder, "kept"))
        options = ImageOptions(base=str(base_tar()), lock=lean_lock(requirements))
        build_image(bundle, f"kept:{KEEPING}", ModelSpec(bundle.digest, bundle.path, trust=True), options)
        load(Store(), f"kept:{KEEPING}", find_engine("docker"))


@contextmanager
def docker_daemon() -> Iterator[Daemon]:
    """One without networks of its own, whose folder is gone afterwards.

    Where none is installed the test fails; where the machine forbids it, it is skipped aloud.
    """
    program = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    assert program, "this test needs Docker: apt-get install docker.io"
    with TemporaryDirectory(prefix="lwd-") as name:  # a short one, for the sockets in it
        folder, host = Path(name), f"unix://{name}/s"
        command = [program, "--iptables=false", "--ip6tables=false", "--bridge=none", "-H", host, "-p", f"{name}/pid"]
        command += ["--data-root", f"{name}/data", "--exec-root", f"{name}/exec"]
        with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as child:
            try:
                _await_daemon(host, child, folder / "log")
                yield Daemon(host)
            finally:
                child.terminate()
                child.wait(PATIENCE)
                # it leaves this one mounted, and a folder with a mount in it cannot be removed
                subprocess.run(["umount", f"{name}/exec/netns/default"], capture_output=True)


def base_tar() -> Path:
    """Debian with its Python, made once and kept."""
    kept = KEPT / "base.tar"
    if not kept.exists():
        program = shutil.which("mmdebstrap")
        assert program, "this test needs a base: apt-get install mmdebstrap"
        kept.parent.mkdir(parents=True, exist_ok=True)
        stage = kept.with_suffix(f".{os.getpid()}.tar")
        included = "--include=python3,ca-certificates"
        subprocess.run([program, "--quiet", "--variant=minbase", included, "bookworm", str(stage)], check=True)
        stage.replace(kept)
    return kept


def lean_lock(requirements: tuple[str, ...]) -> Path:
    """The lock of just what these tests' models import, in the versions that are installed here, kept."""
    wanted = [pin for pin in pins(requirements, PLATFORMS["linux/amd64"], 11) if not pin.startswith("mlflow-tracing")]
    kept = KEPT / f"lock-{sha256_json(wanted)[7:19]}.txt"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        store, platform = Store(), PLATFORMS["linux/amd64"]
        base = open_base(store, str(base_tar()), platform)
        kept.write_text(lock_text(Wheels(store, platform, base.minor, base.glibc).locked(wanted)))
    return kept


@contextmanager
def container_place(data: Path, requirements: tuple[str, ...] = (*LEAN, *TORCH)) -> Iterator[TargetUnderTest]:
    """A row of the suite of targets; `data`, the user's folder, holds nothing of it but locks."""
    with docker_daemon() as daemon, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", daemon.host)
        with TemporaryDirectory() as folder:
            daemon.keep_layers(Path(folder) / "kept", requirements)
        options = {**host_options(requirements), "start_timeout_s": "120"}
        yield TargetUnderTest("container:/docker", daemon.left, options, callers=2)


def host_options(requirements: tuple[str, ...]) -> dict[str, str]:
    """Of a small image, on the network of this machine."""
    return {"base": str(base_tar()), "lock": str(lean_lock(requirements)), "network": "host"}


def until(done: Callable[[], bool]) -> None:
    """Until `done()`."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)


def inspected(daemon: Daemon, container: str) -> dict[str, object]:
    """All that Docker knows of it."""
    said: dict[str, object] = json.loads(daemon.docker("container", "inspect", container))[0]
    return said


def _await_daemon(host: str, child: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        if child.poll() is not None:
            pytest.skip(f"THIS MACHINE RUNS NO CONTAINERS, so nothing was seen of them: {log.read_text()[-500:]}")
        return subprocess.run(["docker", "-H", host, "info"], capture_output=True, timeout=60).returncode == 0

    until(answers)
