"""What images of tests are made of, kept in the user's cache from one run to the next: a base, wheels, environments."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from platformdirs import user_cache_path
from tests.support.containers.daemon import KEPT
from tests.support.machine import need_program

from likewise.bundles.format import EngineEntry, Manifest
from likewise.bundles.open import Bundle, write_manifest
from likewise.core.spec import ModelSpec
from likewise.images import archives, environment
from likewise.images.base import open_base
from likewise.images.build import ImageOptions, build_image
from likewise.images.oci import PLATFORMS
from likewise.images.store import Store
from likewise.images.wheels import Wheels, lock_text, pins

CACHE = user_cache_path("likewise-tests")
SUITE, PACKAGES = "bookworm", ("base-files", "ca-certificates", "dash", "libstdc++6", "python3")
AMD64 = PLATFORMS["linux/amd64"]
LEAN = ("likewise", "mlflow-skinny", "pandas", "cloudpickle")
"""What a pyfunc of the tests imports; all that MLflow requires would take minutes to pack."""
QUICKEST = 1  # of gzip's levels: these layers go no further than this machine
ENGINES = ("testing", "openvino", "pyfunc")


@contextmanager
def quickly_zipped() -> Iterator[None]:
    """Layers that this process makes are zipped at QUICKEST: the digests are others, the files in them the same."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (environment, archives):
            patch.setattr(module, "LEVEL", QUICKEST)
        yield


class Cache:
    """The user's `LIKEWISE_CACHE_HOME` during a run; it begins with what earlier runs have made.

    base: Debian with its Python, as a tar.  lock: of the environment of `pyfunc`.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = Store(home / "images")
        self.base = _base()
        self.lock = home / "pyfunc.lock"

    def environment(self, engine: str) -> str:
        """The name of an image in `store` that holds the environment of one of ENGINES, made where it is new."""
        name, kept = f"{engine}:{KEPT}", Store(CACHE / f"images-{QUICKEST}")
        with _alone("images"):
            if engine == "pyfunc":
                self.lock.write_text(_lean_lock(kept, self.base))
            with TemporaryDirectory() as folder:
                bundle = _empty_bundle(Path(folder), engine)
                options = ImageOptions(base=str(self.base), lock=self.lock if engine == "pyfunc" else None)
                model = ModelSpec(bundle.digest, bundle.path, trust=True)
                with quickly_zipped():
                    image = build_image(bundle, name, model, options, store=kept).image
            _link(kept.folder, self.store.folder)
        self.store.name(name, image)
        return name

    def options(self) -> dict[str, str]:
        """Of a deployment on the network of this machine.

        A container that is stopped before it handles signals, as where a plan is cut off, takes all of its time.
        """
        return {"base": str(self.base), "network": "host", "stop_timeout_s": "3"}


def _base() -> Path:
    """Its packages are unpacked and not set up, which takes a third of the time and is all that a service needs."""
    made_of = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]
    kept = CACHE / f"base-{made_of}.tar"
    with _alone("base"):
        if not kept.exists():
            program, stage = need_program("mmdebstrap", "mmdebstrap"), kept.with_suffix(f".{os.getpid()}.tar")
            command = [program, "--quiet", "--variant=extract", f"--include={','.join(PACKAGES)}", SUITE, str(stage)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
            stage.replace(kept)
    return kept


def _lean_lock(store: Store, base: Path) -> str:
    """Just what LEAN needs, in the versions that are installed here."""
    wanted = [pin for pin in pins(LEAN, AMD64, 11, unused={}) if not pin.startswith("mlflow-tracing")]
    found = open_base(store, str(base), AMD64)
    return lock_text(Wheels(store, AMD64, found.minor, found.glibc).locked(wanted))


def _empty_bundle(folder: Path, engine: str) -> Bundle:
    """A bundle of nothing but its manifest."""
    return write_manifest(folder, Manifest({}, engines=(EngineEntry(engine, "native", True, "sha256:" + "0" * 64),)))


def _link(source: Path, target: Path) -> None:
    """Files of a store that another one lacks: they never change, so one file can have both names."""
    for path in source.rglob("*"):
        there = target / path.relative_to(source)
        if path.is_file() and path.suffix != ".lock" and path.name != "index.json" and not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, there)
            except OSError:  # another disk
                shutil.copyfile(path, there)


@contextmanager
def _alone(what: str) -> Iterator[None]:
    """No other process is here meanwhile."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
