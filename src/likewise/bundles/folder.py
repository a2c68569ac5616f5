"""Walking a folder of untrusted origin: regular files only, named by safe relative paths."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from likewise.core.cores import usable_cores
from likewise.core.digests import sha256_file
from likewise.core.errors import UnsafeArchive


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: bytes and sha256."""

    size: int
    sha256: str


def safe_relative(name: str) -> str:
    """`name` itself where it stays inside its folder; UnsafeArchive where it is absolute, climbs or hides a control."""
    parts = PurePosixPath(name).parts
    clean = "/".join(parts)
    if not parts or name != clean or name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
        raise UnsafeArchive(
            f"the path {name!r} does not stay inside its folder, or is not a plain path",
            remedy="do not use this archive; ask its maker for one made with `likewise bundle`",
        )
    return name


def regular_files(root: Path) -> Iterator[tuple[str, Path]]:
    """(`a/b.txt`, its path) of every file below `root`, sorted; UnsafeArchive for a link or a special file."""
    for folder, folders, names in os.walk(root, followlinks=False):
        folders.sort()
        for name in sorted(folders + names):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            relative = path.relative_to(root).as_posix()
            if stat.S_ISREG(mode):
                yield safe_relative(relative), path
            elif not stat.S_ISDIR(mode):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
                raise UnsafeArchive(
                    f"{relative!r} in {root} is {kind}; only files and folders are taken",
                    remedy="replace it by the file that it stands for, and log the model again",
                )


def inventory(root: Path, *, without: frozenset[str] = frozenset()) -> dict[str, FileEntry]:
    """Size and sha256 of every file below `root`, by relative path."""
    found = [(name, path) for name, path in regular_files(root) if name not in without]
    with ThreadPoolExecutor(usable_cores()) as pool:  # hashing leaves Python's lock, and a start waits for it
        entries = list(pool.map(_entry, (path for _, path in found)))
    return {name: entry for (name, _), entry in zip(found, entries, strict=True)}


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A second name for a file that is never written again; a copy where the disk is another."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _entry(path: Path) -> FileEntry:
    return FileEntry(path.stat().st_size, sha256_file(path))
