"""Files and folders that no other user may change; symbolic links are never followed."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from likewise.core.errors import OutputRefused

WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def private_folder(path: Path) -> Path:
    """Create the folder `path` with mode 0700, or check that an existing one belongs to this user; returns `path`.

    Write permission of others on an existing folder is removed.
    Raises OutputRefused if it is a link or not a folder, or belongs to another user; OSError if it cannot be created.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise _refused(path, "is a link or not a folder") from error
    handle = open_folder(path)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        if mode & WRITABLE:
            os.fchmod(handle, mode & ~WRITABLE)
    finally:
        os.close(handle)
    return path


def open_folder(path: Path) -> int:
    """A descriptor of the folder `path`, which belongs to this user; raises OutputRefused as `private_folder` does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise _refused(path, "is a link or not a folder") from error
        raise
    if os.fstat(handle).st_uid != os.geteuid():
        os.close(handle)
        raise _refused(path, "belongs to another user")
    return handle


def write_private(path: Path, data: bytes | str) -> None:
    """Replace the file `path` with `data` in one step, with mode 0600; its folder must exist."""
    handle, stage = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600, and a random name
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
        Path(stage).replace(path)
    except BaseException:
        Path(stage).unlink(missing_ok=True)
        raise


def changeable_by_others(path: Path) -> Path | None:
    """The first of the absolute `path` and its parents that another user may change or replace; None if there is none.

    Root is trusted.  A folder with the sticky bit, such as /tmp, protects the entries of their owners.
    """
    for part in (path, *path.parents):
        info = part.stat()
        shared = stat.S_IWOTH if info.st_gid == info.st_uid else WRITABLE  # equal ids: the user's private group
        sticky = part != path and info.st_mode & stat.S_ISVTX
        if info.st_uid not in (0, os.geteuid()) or (info.st_mode & shared and not sticky):
            return part
    return None


def _refused(path: Path, why: str) -> OutputRefused:
    return OutputRefused(f"{path} {why}", remedy="delete it, or choose another folder")
