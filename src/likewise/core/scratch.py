"""Temporary folders, of which a killed process leaves none for good."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new private folder, removed at the end of `with`.  parent: by default the system's folder for temporary files.

    It is locked as long as this process, or one that it forked, is running.  First, those with the same prefix that
    nobody has locked are removed: their processes were killed.
    """
    parent = parent or Path(tempfile.gettempdir())
    _remove_abandoned(prefix, parent)
    folder, lock = _locked(prefix, parent)
    try:
        yield folder
    finally:
        _remove(folder, lock)


def _remove(folder: Path, lock: int) -> None:
    """Remove the folder, also if Ctrl-C interrupts that."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _locked(prefix: str, parent: Path) -> tuple[Path, int]:
    """A new folder and the descriptor that locks it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            if (lock := _lock(folder)) is not None and folder.is_dir():
                return folder, lock  # else another process has just taken it for an abandoned one
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _lock(folder: Path) -> int | None:
    """The descriptor of the folder, locked; None if it is locked already, or no longer exists."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _remove_abandoned(prefix: str, parent: Path) -> None:
    with suppress(OSError):
        names = [entry.name for entry in os.scandir(parent) if entry.name.startswith(prefix)]
        for path in (parent / name for name in names):
            if path.lstat().st_uid == os.geteuid() and (lock := _lock(path)) is not None:
                _remove(path, lock)
