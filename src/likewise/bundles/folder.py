"""Listing a folder from an untrusted source: regular files only, identified by safe relative paths."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from likewise.core.cores import usable_cores
from likewise.core.digests import sha256_file
from likewise.core.errors import UnsafeArchive

ADDED_FOLDERS = frozenset({"code", "lost+found", "__MACOSX"})
"""Top-level folders that SageMaker's SDK, file systems and archive programs add to a bundle."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file's size in bytes and its digest, `sha256:` and 64 hex digits."""

    size: int
    sha256: str


def safe_relative(name: str) -> str:
    """`name`, if it is a relative path inside its folder.

    Raises UnsafeArchive if it is absolute, contains `..` or has unprintable characters.
    """
    if not {"", ".", ".."}.isdisjoint(name.split("/")) or "\\" in name or not name.isprintable():
        raise UnsafeArchive(
            f"the path {name!r} leads outside its folder, or is not a plain path",
            remedy="do not use this archive; request one created with `likewise bundle` from its author",
        )
    return name


def regular_files(root: Path, *, without: Collection[str] = ()) -> Iterator[tuple[str, Path]]:
    """(relative name such as `a/b.txt`, path) of every file below `root`, sorted.

    without: relative paths of files and folders to leave out.  Raises UnsafeArchive for a link or a special file.
    """
    for folder, folders, names in os.walk(root, followlinks=False):
        folders.sort()
        inside = "".join(f"{part}/" for part in Path(folder).relative_to(root).parts)
        for name in sorted(folders + names):
            path, relative = os.path.join(folder, name), inside + name
            mode = os.lstat(path).st_mode
            if relative in without and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                folders[:] = [each for each in folders if each != name]
            elif stat.S_ISREG(mode):
                yield safe_relative(relative), Path(path)
            elif not stat.S_ISDIR(mode):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
                raise UnsafeArchive(
                    f"{relative!r} in {root} is {kind}; only regular files and folders are allowed",
                    remedy="replace it with the file that it points to, and log the model again",
                )


def added_by_others(root: Path, listed: Collection[str]) -> frozenset[str]:
    """What other programs added to a bundle: relative paths of files and of ADDED_FOLDERS; nothing in `listed`."""
    own = {name.partition("/")[0] for name in listed}
    folders = frozenset(name for name in ADDED_FOLDERS - own if (root / name).is_dir())
    names = {name: name.rpartition("/")[2] for name, _ in regular_files(root, without=folders) if name not in listed}
    return folders.union(name for name, last in names.items() if last == ".DS_Store" or last.startswith("._"))


def empty_folders(root: Path) -> Iterator[Path]:
    """Every folder below `root` that contains no file at any depth, the deepest first."""
    with_files: set[str] = set()
    for folder, folders, names in os.walk(root, topdown=False):
        if names or any(os.path.join(folder, name) in with_files for name in folders):
            with_files.add(folder)
        elif folder != str(root):
            yield Path(folder)


def inventory(root: Path, *, without: frozenset[str] = frozenset()) -> dict[str, FileEntry]:
    """Size and sha256 of every file below `root`, by relative path; without: as in `regular_files`."""
    files = list(regular_files(root, without=without))
    with ThreadPoolExecutor(usable_cores()) as pool:  # hashing releases the GIL, and start-up waits for it
        entries = list(pool.map(_entry, (path for _, path in files)))
    return {name: entry for (name, _), entry in zip(files, entries, strict=True)}


def add_files(
    tar: tarfile.TarFile,
    root: Path,
    *,
    instead: Mapping[str, bytes] = MappingProxyType({}),
    without: Collection[str] = (),
) -> None:
    """Add every file below `root`, without its owner, times and mode.

    instead: contents of files, by relative path.  without: as in `regular_files`.
    """
    for name, path in regular_files(root, without=without):
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
            stream: BinaryIO = io.BytesIO(instead[name]) if name in instead else source
            member = tarfile.TarInfo(name)
            member.size, member.mode = stream.seek(0, os.SEEK_END), 0o644
            stream.seek(0)
            tar.addfile(member, stream)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Hard-link a file that is never modified again; copy it if that is not possible, as on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _entry(path: Path) -> FileEntry:
    return FileEntry(path.stat().st_size, sha256_file(path))
