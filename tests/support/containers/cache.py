"""The parts of test images, cached between runs in the user's cache folder: a base, wheels, environments."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.support.containers.daemon import KEPT
from tests.support.machine import need_program
from tests.support.shared import CACHE, exclusive

from likewise.bundles.format import EngineEntry, Manifest
from likewise.bundles.open import Bundle, write_manifest
from likewise.core.spec import ModelSpec
from likewise.images import archives, environment
from likewise.images.base import open_base
from likewise.images.build import ImageOptions, build_image
from likewise.images.oci import PLATFORMS
from likewise.images.store import Store
from likewise.images.wheel_names import lock_text
from likewise.images.wheels import Wheels, pins

SUITE, PACKAGES = "bookworm", ("base-files", "ca-certificates", "dash", "libstdc++6", "python3")
AMD64 = PLATFORMS["linux/amd64"]
LEAN = ("likewise", "mlflow-skinny", "pandas", "cloudpickle")
"""The packages that the tests' pyfunc models import; packing all requirements of MLflow would take minutes."""
FASTEST = 1  # gzip level: these layers never leave this machine
ENGINES = ("testing", "openvino", "pyfunc")


@contextmanager
def fast_compression() -> Iterator[None]:
    """Layers built in this process are compressed at FASTEST; their digests differ, their files do not."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (environment, archives):
            patch.setattr(module, "LEVEL", FASTEST)
        yield


class Cache:
    """The folder for `LIKEWISE_CACHE_HOME` during a run, filled with the results of earlier runs.

    base: Debian with its Python, as a tar.  lock: requirements file of the environment of `pyfunc`.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = Store(home / "images")
        self.base = _base()
        self.lock = home / "pyfunc.lock"

    def environment(self, engine: str) -> str:
        """The name of an image in `store` with the environment of one of ENGINES; built if it is not cached."""
        name, cached = f"{engine}:{KEPT}", Store(CACHE / f"images-{FASTEST}")
        with exclusive(CACHE / "images.lock"):
            if engine == "pyfunc":
                self.lock.write_text(_lean_lock(cached, self.base))
            with TemporaryDirectory() as folder:
                bundle = _empty_bundle(Path(folder), engine)
                options = ImageOptions(base=str(self.base), lock=self.lock if engine == "pyfunc" else None)
                model = ModelSpec(bundle.digest, bundle.path, trust=True)
                with fast_compression():
                    image = build_image(bundle, name, model, options, store=cached).image
            _link(cached.folder, self.store.folder)
        self.store.name(name, image)
        return name

    def options(self) -> dict[str, str]:
        """Options of a deployment on this machine's network.

        The stop timeout is short, because a container that is stopped before it handles signals, as after an
        interrupted plan, uses all of it.
        """
        return {"base": str(self.base), "network": "host", "stop_timeout_s": "3"}


def _base() -> Path:
    """The base image; its packages are only unpacked, not configured, which is sufficient and three times as fast."""
    digest = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]
    cached = CACHE / f"base-{digest}.tar"
    with exclusive(CACHE / "base.lock"):
        if not cached.exists():
            program, stage = need_program("mmdebstrap", "mmdebstrap"), cached.with_suffix(f".{os.getpid()}.tar")
            command = [program, "--quiet", "--variant=extract", f"--include={','.join(PACKAGES)}", SUITE, str(stage)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
            stage.replace(cached)
    return cached


def _lean_lock(store: Store, base: Path) -> str:
    """A requirements file with only the dependencies of LEAN, in the installed versions."""
    requirements = [pin for pin in pins(LEAN, AMD64, 11, unused={}) if not pin.startswith("mlflow-tracing")]
    opened = open_base(store, str(base), AMD64)
    return lock_text(Wheels(store, AMD64, opened.minor, opened.glibc).locked(requirements))


def _empty_bundle(folder: Path, engine: str) -> Bundle:
    """A bundle that consists only of a manifest."""
    return write_manifest(folder, Manifest({}, engines=(EngineEntry(engine, "native"),)))


def _link(source: Path, target: Path) -> None:
    """Hard-link the files of a store that another one lacks; files of a store never change."""
    for path in source.rglob("*"):
        copy = target / path.relative_to(source)
        if path.is_file() and path.suffix != ".lock" and path.name != "index.json" and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, copy)
            except OSError:  # another file system
                shutil.copyfile(path, copy)
