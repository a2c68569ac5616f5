"""Files and folders that no other user may change; symbolic links are not followed."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from likewise.core.errors import OutputRefused

WRITABLE = stat.S_IWGRP | stat.S_IWOTH
OTHERS = stat.S_IRWXG | stat.S_IRWXO
REMEDY = "delete it, or choose another folder"


def private_folder(path: Path, *, remedy: str = REMEDY) -> Path:
    """Create the folder `path`, which Likewise has named, with mode 0700, or give that mode to an existing one.

    Raises OutputRefused if it is a link or not a folder, belongs to another user, or contains entries of other users
    and they could write to it until now; OSError if it cannot be created.  remedy: of the error.  Returns `path`.
    """
    handle = _created(path, remedy)
    try:
        if _writable(handle) and (entry := _foreign_entry(handle)):
            raise _refused(path / entry, "belongs to another user", remedy)
        make_private(handle)
    finally:
        os.close(handle)
    return path


def own_folder(path: Path, *, remedy: str = REMEDY) -> Path:
    """Create the folder `path`, which the user has named, with mode 0700; an existing one keeps its mode.

    It may be a link of this user.
    Raises OutputRefused if it belongs to another user, or others than the user's own group may write to it; OSError if
    it cannot be created.  remedy: of the error.  Returns `path`.
    """
    if path.is_symlink() and path.lstat().st_uid not in (0, os.geteuid()):
        raise _refused(path, "belongs to another user", remedy)
    handle = _created(path.resolve(), remedy)
    try:
        if _writable(handle) & _shared(os.fstat(handle)):
            raise _refused(path, "can be changed by other users", remedy)
    finally:
        os.close(handle)
    return path


def open_folder(path: Path, *, remedy: str = REMEDY) -> int:
    """A descriptor of the folder `path`; OutputRefused if it is a link, or another user may have written to it."""
    handle = _opened(path, remedy)
    if _writable(handle):
        os.close(handle)
        raise _refused(path, "can be changed by other users", remedy)
    return handle


def open_private(path: Path, flags: int = os.O_RDWR) -> int:
    """A descriptor of the file `path`, created if missing, with mode 0600; OutputRefused if it is a link."""
    try:
        handle = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _refused(path, "is a link", REMEDY) from error
    make_private(handle)
    return handle


def open_file(path: Path, mode: str) -> BinaryIO:
    """Open the file in a binary `mode`, as `open` does; OSError (ELOOP) if it is a link."""
    return cast(BinaryIO, open(path, mode, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666)))


def make_private(file: int | Path) -> None:
    """Remove the permissions of all other users, where the file system has such permissions."""
    with suppress(OSError):  # an SMB mount, for example, has one mode for all files
        mode = stat.S_IMODE(os.stat(file).st_mode)
        if mode & OTHERS:
            os.chmod(file, mode & ~OTHERS)


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
        sticky = part != path and info.st_mode & stat.S_ISVTX
        if info.st_uid not in (0, os.geteuid()) or (info.st_mode & _shared(info) and not sticky):
            return part
    return None


def entry_changeable_by_others(folder: Path) -> Path | None:
    """The first entry below `folder` that another user may change; None if there is none.  Links are not followed."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            info = (path := Path(parent, name)).lstat()
            if info.st_uid not in (0, os.geteuid()) or (info.st_mode & _shared(info) and not path.is_symlink()):
                return path
    return None


def _shared(info: os.stat_result) -> int:
    """The permissions to write that other users have."""
    return stat.S_IWOTH if info.st_gid == info.st_uid else WRITABLE  # equal ids: the user's private group


def _created(path: Path, remedy: str) -> int:
    """A descriptor of the folder, created with its parents if missing."""
    try:
        for part in reversed([part for part in (path, *path.parents) if not part.exists()]):
            part.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError as error:
        raise _refused(path, "is a link or not a folder", remedy) from error
    return _opened(path, remedy)


def _opened(path: Path, remedy: str) -> int:
    """A descriptor of the folder `path`, which is not a link and belongs to this user."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise _refused(path, "is a link or not a folder", remedy) from error
        raise
    owner = os.fstat(handle).st_uid
    if owner != os.geteuid() and owner != _new_file(handle)[0]:  # which writes a file, so only where it matters
        os.close(handle)
        raise _refused(path, "belongs to another user", remedy)
    return handle


def _writable(handle: int) -> int:
    """The bits of the folder's mode that let others write to it, except those that every file there has."""
    bits = os.fstat(handle).st_mode & WRITABLE
    return bits and bits & ~_new_file(handle)[1]


def _new_file(handle: int) -> tuple[int, int]:
    """Owner and mode of files that this process creates in the folder.

    Some file systems map them: root is nobody on NFS, and all files of an SMB mount have one owner and one mode.
    """
    name = f".likewise-{os.urandom(8).hex()}"
    try:
        file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=handle)
    except OSError:
        return os.geteuid(), 0o600
    try:
        info = os.fstat(file)
        return info.st_uid, info.st_mode
    finally:
        os.close(file)
        with suppress(OSError):
            os.unlink(name, dir_fd=handle)


def _foreign_entry(handle: int) -> str | None:
    """The name of an entry whose owner is not that of the folder."""
    owner = os.fstat(handle).st_uid
    with os.scandir(handle) as entries:
        return next((entry.name for entry in entries if entry.stat(follow_symlinks=False).st_uid != owner), None)


def _refused(path: Path, why: str, remedy: str) -> OutputRefused:
    return OutputRefused(f"{path} {why}", remedy=remedy)
