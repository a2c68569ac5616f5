"""What has come to a node: archives unpacked once, used by many processes, dropped when nobody needs them.

Sent by value to workers where nothing of Likewise may be installed, so it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

LIMIT = 16 << 30  # bytes of unpacked bundles and environments on a node
Fetch = Callable[[BinaryIO], None]


def here() -> dict[str, str]:
    """What compiled libraries must agree with."""
    libc = "-".join(part for part in platform.libc_ver()[:1] if part)
    return {
        "python": f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}",
        "platform": " ".join(part for part in (sysconfig.get_platform(), libc) if part),
    }


def require_like(made: Mapping[str, str], place: str, remedy: str) -> None:
    """RuntimeError where this Python or platform is not that of `made`, which `here` gave elsewhere."""
    for kind, mine in here().items():
        if mine != made[kind]:
            raise RuntimeError(f"the environment is for {made[kind]}, and this {place} runs {mine}; {remedy}")


def make_importable(environment: str) -> None:
    """The packages in that folder, before all others."""
    if environment not in sys.path:
        sys.path.insert(0, environment)
        importlib.invalidate_caches()


def at_home(package: str, versions: Mapping[str, str]) -> bool:
    """Whether the very same Likewise, by the digest of its sources, and all that it needs is importable already."""
    found = importlib.util.find_spec("likewise")
    if found is None or not found.submodule_search_locations:
        return False
    try:
        if any(importlib.metadata.version(name) != version for name, version in versions.items()):
            return False
    except importlib.metadata.PackageNotFoundError:
        return False
    return package_digest(Path(next(iter(found.submodule_search_locations)))) == package


def package_digest(folder: Path) -> str:
    """The digest of the files below `folder`, names included, but for byte code."""
    digest = hashlib.sha256()
    for path in package_files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def package_files(folder: Path) -> list[Path]:
    """All files below `folder`, sorted, but for byte code."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def unpacked(cache: Path, key: str, fetch: Fetch) -> Path:
    """The folder of the archive `key`, fetched and unpacked by whichever process of this node came first.

    key: a digest of the content. fetch: writes the gzipped tar, or raises where its bytes are not those that were sent.
    The folder is this process's as long as that lives: nobody drops it meanwhile.
    """
    folder = cache / key
    # of the process, as a module that is sent by value may be there more than once
    held: dict[Path, int] = sys.__dict__.setdefault("_likewise_held", {})
    if folder in held and folder.is_dir():
        return folder
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _take(folder, held):
        with _exclusive(cache):
            if not folder.is_dir():
                _unpack(folder, fetch)
            _take(folder, held)
            _drop_oldest(cache, LIMIT)
    return folder


def cache_folder(kind: str) -> Path:
    """`kind` in `LIKEWISE_CACHE_HOME` or in the user's cache, else a folder of this user's among temporary files."""
    home = os.environ.get("LIKEWISE_CACHE_HOME")
    if home:
        return Path(home) / kind
    with contextlib.suppress(OSError, RuntimeError):
        folder = Path.home() / ".cache" / "likewise" / kind
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    own = Path(tempfile.gettempdir()) / f"likewise-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.stat().st_uid != os.getuid():  # another user's: it could put its own code there
        raise RuntimeError(f"{own} belongs to another user; set LIKEWISE_CACHE_HOME for the workers")
    return own / kind


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


def _unpack(folder: Path, fetch: Fetch) -> None:
    _clear(folder)
    stage = tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent)
    try:
        with tempfile.TemporaryFile(dir=folder.parent) as stream:
            fetch(stream)
            stream.seek(0)
            with tarfile.open(fileobj=stream) as archive:
                archive.extractall(stage, filter="data")
        Path(stage).rename(folder)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def _drop_oldest(cache: Path, limit: int) -> None:
    """Remove what was taken longest ago and no living process has, until the rest has at most `limit` bytes."""
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
