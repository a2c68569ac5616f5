"""What runs first in a Spark worker, where nothing of Likewise may be installed.

Sent by value, so it imports the standard library only, and `pyspark`, which every worker has.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import pickle
import platform
import shutil
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# A plain dict, as a class of ours could not be unpickled before the environment is there:
# python, platform; model, environment: names of sent files; model_key, environment_key: digests;
# package: digest of our own code; versions: of every distribution in the environment
Shipment = dict[str, Any]

LIMIT = 16 << 30  # bytes of unpacked bundles and environments on a host


def task(call: str, arguments: bytes, shipment: Shipment | None) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A function for Spark: `likewise.targets.spark.CALL(batches, folder, *arguments)`, once Likewise is importable.

    call: `module:function`. arguments: a pickled tuple. folder: of the bundle that came with `shipment`, None without.
    """

    def run(batches: Iterator[Any]) -> Iterator[Any]:
        folder = None if shipment is None else arrive(shipment)
        # the tokenizer's threads: what Spark gave to the task, and not every core of the host
        os.environ.setdefault("RAYON_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        module, _, name = call.partition(":")
        function = getattr(importlib.import_module(f"likewise.targets.spark.{module}"), name)
        result: Iterator[Any] = function(batches, folder, *pickle.loads(arguments))  # noqa: S301  Spark's own channel
        return result

    return run


def here() -> dict[str, str]:
    """What compiled libraries must agree with."""
    libc = "-".join(part for part in platform.libc_ver()[:1] if part)
    return {
        "python": f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}",
        "platform": " ".join(part for part in (sysconfig.get_platform(), libc) if part),
    }


def arrive(shipment: Shipment) -> str:
    """Unpack what was sent, once a host, make it importable, and return the bundle's folder.

    Raises RuntimeError where this Python or platform is not the one that the environment was made on.
    """
    mine = here()
    for kind in ("python", "platform"):
        if mine[kind] != shipment[kind]:
            raise RuntimeError(
                f"the driver's environment is for {shipment[kind]}, and this executor runs {mine[kind]}; "
                "run the driver and the executors on one Python minor version and platform (spark.pyspark.python)"
            )
    if not at_home(shipment):
        folder = unpacked(shipment["environment"], shipment["environment_key"])
        if folder not in sys.path:
            sys.path.insert(0, folder)
            importlib.invalidate_caches()
    return unpacked(shipment["model"], shipment["model_key"])


def at_home(shipment: Shipment) -> bool:
    """Whether the very same Likewise, and all that it needs, is importable already."""
    found = importlib.util.find_spec("likewise")
    if found is None or not found.submodule_search_locations:
        return False
    try:
        if any(importlib.metadata.version(name) != version for name, version in shipment["versions"].items()):
            return False
    except importlib.metadata.PackageNotFoundError:
        return False
    return bool(package_digest(Path(next(iter(found.submodule_search_locations)))) == shipment["package"])


def package_digest(folder: Path) -> str:
    """The digest of the Python sources below `folder`, names included."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def unpacked(name: str, key: str) -> str:
    """The folder of the archive `name` that Spark brought, unpacked by whichever worker of this host came first.

    It is this worker's as long as the process lives: nobody drops it meanwhile.
    """
    folder = cache_folder() / key
    # of the process, as this module is another one in each task: it comes by value
    held: dict[Path, int] = sys.__dict__.setdefault("_likewise_held", {})
    if folder in held and folder.is_dir():
        return str(folder)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _take(folder, held):
        with _exclusive(folder.parent):
            if not folder.is_dir():
                _unpack(name, folder)
            _take(folder, held)
            _drop_oldest(folder.parent, LIMIT)
    return str(folder)


def _take(folder: Path, held: dict[Path, int]) -> bool:
    """Whether the entry is there; its lock is shared from now on, and its age begins anew."""
    handle = _locked(folder, fcntl.LOCK_SH)
    if not folder.is_dir():
        os.close(handle)
        return False
    os.utime(handle, ns=(time.time_ns(),) * 2)  # finer than the kernel's own clock of files
    if folder in held:  # somebody had cleared the cache by hand
        os.close(held[folder])
    held[folder] = handle
    return True


def _unpack(name: str, folder: Path) -> None:
    from pyspark import SparkFiles

    _clear(folder)
    stage = tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent)
    try:
        with tarfile.open(SparkFiles.get(name)) as archive:
            archive.extractall(stage, filter="data")
        Path(stage).rename(folder)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def _drop_oldest(cache: Path, limit: int) -> None:
    """Remove what was taken longest ago and no living worker has, until the rest has at most `limit` bytes."""
    locks = sorted(cache.glob("*.lock"), key=lambda path: path.stat().st_mtime_ns)
    sizes = {path: _size(path.with_suffix("")) for path in locks}
    total = sum(sizes.values())
    for path, size in sizes.items():
        if total <= limit:
            return
        folder = path.with_suffix("")
        with contextlib.suppress(BlockingIOError), _exclusive(folder, fcntl.LOCK_NB):
            if folder.is_dir():  # half of it must never stand under its name
                folder.rename(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=cache))
            _clear(folder)
            path.unlink()
            total -= size


def _clear(folder: Path) -> None:
    """Remove what processes that were killed have left half done."""
    for left in _left(folder):
        shutil.rmtree(left, ignore_errors=True)


def _left(folder: Path) -> list[Path]:
    return [path for path in folder.parent.glob(f"{folder.name}.*") if path.is_dir()]


def _size(folder: Path) -> int:
    """Bytes of an entry, and of what was left half done of it."""
    size = 0
    for top in (folder, *_left(folder)):
        for parent, _, names in os.walk(top):
            for name in names:
                with contextlib.suppress(OSError):
                    size += os.lstat(os.path.join(parent, name)).st_size
    return size


@contextlib.contextmanager
def _exclusive(folder: Path, more: int = 0) -> Iterator[None]:
    """The lock of a folder for this process alone; BlockingIOError where `more` is LOCK_NB and another has it."""
    handle = _locked(folder, fcntl.LOCK_EX | more)
    try:
        yield
    finally:
        os.close(handle)


def _locked(folder: Path, how: int) -> int:
    """A handle of the lock beside `folder`, made where there is none."""
    path = folder.with_name(f"{folder.name}.lock")
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, how)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # it was dropped while this process waited


def cache_folder() -> Path:
    """`spark` in `LIKEWISE_CACHE_HOME` or in the user's cache, else a folder of this user's among temporary files."""
    home = os.environ.get("LIKEWISE_CACHE_HOME")
    if home:
        return Path(home) / "spark"
    try:
        folder = Path.home() / ".cache" / "likewise" / "spark"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    own = Path(tempfile.gettempdir()) / f"likewise-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.stat().st_uid != os.getuid():  # another user's: it could put its own code there
        raise RuntimeError(f"{own} belongs to another user; set LIKEWISE_CACHE_HOME for the executors")
    return own / "spark"
