"""A node's cache of unpacked archives: unpacked once, shared by many processes, evicted when no process uses them.

Pickled by value to workers where Likewise may not be installed, so this module imports the standard library only.
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
import stat
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

LIMIT = 16 << 30  # bytes in a cache of unpacked archives, and in that of bundles
Fetch = Callable[[BinaryIO], None]


def local_runtime() -> dict[str, str]:
    """The Python version and platform, which compiled libraries must match: keys `python` and `platform`."""
    libc = "-".join(part for part in platform.libc_ver()[:1] if part)
    return {
        "python": f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}",
        "platform": " ".join(part for part in (sysconfig.get_platform(), libc) if part),
    }


def require_runtime(expected: Mapping[str, str], host: str, remedy: str) -> None:
    """RuntimeError if this Python or platform differs from `expected`, the `local_runtime` of another machine."""
    for kind, actual in local_runtime().items():
        if actual != expected[kind]:
            raise RuntimeError(f"the environment is for {expected[kind]}, and this {host} runs {actual}; {remedy}")


def make_importable(environment: str) -> None:
    """Put the folder `environment` at the front of the import path."""
    if environment not in sys.path:
        sys.path.insert(0, environment)
        importlib.invalidate_caches()


def already_installed(package: str, versions: Mapping[str, str]) -> bool:
    """Whether the same Likewise (`package`: digest of its sources) and the same `versions` of its dependencies are
    importable already.
    """
    spec = importlib.util.find_spec("likewise")
    if spec is None or not spec.submodule_search_locations:
        return False
    try:
        if any(importlib.metadata.version(name) != version for name, version in versions.items()):
            return False
    except importlib.metadata.PackageNotFoundError:
        return False
    return package_digest(Path(next(iter(spec.submodule_search_locations)))) == package


def package_digest(folder: Path) -> str:
    """The SHA-256 digest of the names and contents of all files below `folder`, except byte code, in hex."""
    digest = hashlib.sha256()
    for path in package_files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def package_files(folder: Path) -> list[Path]:
    """All files below `folder`, sorted, except byte code."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def unpacked(cache: Path, key: str, fetch: Fetch) -> Path:
    """The folder of the archive `key`, fetched and unpacked by the first process on this node that needs it.

    key: a digest of the content. fetch: writes the gzipped tar to a stream, or raises if its bytes differ from those
    that were sent.  This process holds a shared lock until it exits, so the folder is not evicted while it is in use.
    Raises RuntimeError if another user may have written to the cache or to the folder.
    """
    folder, locks = cache / key, _held()
    if folder in locks and folder.is_dir():
        return folder
    with contextlib.suppress(FileExistsError):
        cache.mkdir(mode=0o700, parents=True)
    _require_private(cache)
    if not _acquire(folder, locks):
        with exclusive(cache):
            if not folder.is_dir():
                _unpack(folder, fetch)
            _acquire(folder, locks)
            _evict_oldest(cache, LIMIT)
    return folder


def keep(folder: Path, *, new: bool = False) -> bool:
    """Use a folder of a cache until this process exits: it is not evicted. False if it does not exist.

    new: whether it has just been added; then the least recently used others are evicted, until LIMIT bytes remain.
    """
    try:
        if not _acquire(folder, _held(), Path.lstat):
            return False
        if new:
            with exclusive(folder.parent):
                _evict_oldest(folder.parent, LIMIT)
    except OSError:  # a file system without locks, on which nothing is evicted
        return folder.is_dir()
    return True


def _held() -> dict[Path, int]:
    """The locks of this process; in `sys`, since a module that is pickled by value may exist several times in it."""
    held: dict[Path, int] = sys.__dict__.setdefault("_likewise_held", {})
    return held


def cache_folder(kind: str) -> Path:
    """The subfolder `kind` of `LIKEWISE_CACHE_HOME` or of the user's cache, else a per-user temporary folder."""
    home = os.environ.get("LIKEWISE_CACHE_HOME")
    if home:
        return Path(home) / kind
    with contextlib.suppress(OSError, RuntimeError):
        folder = Path.home() / ".cache" / "likewise" / kind
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(folder)
        if os.access(folder, os.W_OK):
            return folder
    own = Path(tempfile.gettempdir()) / f"likewise-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        own.mkdir(mode=0o700)
    _require_private(own)
    return own / kind


def _require_private(folder: Path) -> None:
    """RuntimeError if another user may have put code into `folder`: it is a link, or not this user's alone."""
    found, owner, writable = folder.lstat(), os.geteuid(), stat.S_IWGRP | stat.S_IWOTH
    if found.st_uid != owner or found.st_mode & writable:
        with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as new:  # NFS and SMB may map both
            owner, writable = os.fstat(new.fileno()).st_uid, writable & ~os.fstat(new.fileno()).st_mode
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & writable:
        raise RuntimeError(
            f"{folder} is a link, belongs to another user or can be changed by others, so its content is not used; "
            "delete it, or set LIKEWISE_CACHE_HOME to a private folder for the workers"
        )


def _acquire(folder: Path, locks: dict[Path, int], check: Callable[[Path], object] = _require_private) -> bool:
    """Take the shared lock of a cache entry and mark it as just used; False if the entry does not exist.

    check: called with the locked entry; FileNotFoundError if it does not exist.
    """
    handle = _lock(folder, fcntl.LOCK_SH)
    try:
        check(folder)
    except FileNotFoundError:
        os.close(handle)
        return False
    except RuntimeError:
        os.close(handle)
        raise
    os.utime(handle, ns=(time.time_ns(),) * 2)  # finer than the kernel's own file timestamps
    if folder in locks:  # the cache was cleared by hand
        os.close(locks[folder])
    locks[folder] = handle
    return True


def _unpack(folder: Path, fetch: Fetch) -> None:
    _remove_partial(folder)
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


def _evict_oldest(cache: Path, limit: int) -> None:
    """Remove the least recently used entries that no process has locked, until at most `limit` bytes remain."""
    locks = sorted(cache.glob("*.lock"), key=lambda path: path.stat().st_mtime_ns)
    sizes = {path: _size(path.with_suffix("")) for path in locks}
    total = sum(sizes.values())
    for path, size in sizes.items():
        if total <= limit:
            return
        folder = path.with_suffix("")
        with contextlib.suppress(BlockingIOError), exclusive(folder, fcntl.LOCK_NB):
            if folder.is_dir():  # a partly deleted entry must never have this name
                folder.rename(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=cache))
            _remove_partial(folder)
            path.unlink()
            total -= size


def _remove_partial(folder: Path) -> None:
    """Remove partly unpacked or partly deleted folders that killed processes left behind."""
    for partial in _partial_folders(folder):
        shutil.rmtree(partial, ignore_errors=True)


def _partial_folders(folder: Path) -> list[Path]:
    return [path for path in folder.parent.glob(f"{folder.name}.*") if path.is_dir()]


def _size(folder: Path) -> int:
    """The size of an entry and its partial folders in bytes."""
    return sum(map(folder_size, (folder, *_partial_folders(folder))))


def folder_size(folder: Path) -> int:
    """The size of all files below `folder` in bytes, without those that are deleted meanwhile."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size


@contextlib.contextmanager
def exclusive(folder: Path, flags: int = 0) -> Iterator[None]:
    """Hold the exclusive lock of a folder; BlockingIOError if `flags` is LOCK_NB and another process has the lock."""
    handle = _lock(folder, fcntl.LOCK_EX | flags)
    try:
        yield
    finally:
        os.close(handle)


def _lock(folder: Path, operation: int) -> int:
    """Lock the file `FOLDER.lock` next to `folder`, created if missing; its file descriptor."""
    path = folder.with_name(f"{folder.name}.lock")
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, operation)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the lock file was deleted while this process waited
