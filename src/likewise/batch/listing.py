"""Lists the files of an INPUT: one file, the data files of a folder, or the matches of a glob; local or `s3://`."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

from likewise.batch.files import InputFile, LocalFile
from likewise.batch.formats import SUFFIXES, format_of
from likewise.batch.s3 import SCHEME, Bucket
from likewise.core.errors import InputNotFound

MAGIC = re.compile(r"[*?\[]")


def list_files(source: str, any_suffix: bool) -> list[InputFile]:
    """The files of `source`, sorted by name.

    For a folder or a glob only files whose suffix names a format, or all files if `any_suffix` is set; hidden files
    and those whose name starts with `_` are skipped.  Raises InputNotFound if no file matches, WrongUsage for an
    invalid address.
    """
    files = _in_bucket(source, any_suffix) if source.startswith(SCHEME) else _local(source, any_suffix)
    if not files:
        raise InputNotFound(
            f"{source} matches no data file",
            remedy=f"data files end in {', '.join(SUFFIXES)}; for other names add --input-format FORMAT",
        )
    return files


def _local(source: str, any_suffix: bool) -> list[InputFile]:
    if "://" in source:
        raise InputNotFound(f"{source} cannot be read: only paths and s3:// can", remedy="download it first")
    path = Path(source)
    try:
        if MAGIC.search(source) and not path.exists():
            return _glob(source, any_suffix)
        if path.is_dir():
            return [LocalFile.of(path / name, name) for name in _data(_walk(path), any_suffix)]
        if path.exists() and not path.is_file():
            raise InputNotFound(f"{path} is not a regular file", remedy="name CSV, JSON lines or Parquet files")
        return [LocalFile.of(path)]
    except OSError as error:
        cause = f"{error.filename or source}: {error.strerror}"
        raise InputNotFound(cause, remedy="check the path and its permissions") from error


def _glob(pattern: str, any_suffix: bool) -> list[InputFile]:
    """The files that match a glob, and the data files of folders that match it."""
    base = Path(*_fixed(Path(pattern).parts))
    names: set[str] = set()
    for match in map(Path, glob.iglob(pattern, recursive=True)):
        files = _walk(match) if match.is_dir() else ["."]
        names.update((match / name).relative_to(base).as_posix() for name in files)
    return [LocalFile.of(base / name, name) for name in _data(names, any_suffix, Path(pattern).name)]


def _walk(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                yield path.relative_to(folder).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _in_bucket(source: str, any_suffix: bool) -> list[InputFile]:
    bucket, key = Bucket.of(source)
    base, last = key.strip("/"), ""
    if MAGIC.search(key):
        parts = key.rstrip("/").split("/")
        base, last = "/".join(_fixed(parts)), parts[-1]
        keys = [each for each in bucket.list(base) if _matches_prefix(each.split("/"), parts)]
    elif key and not key.endswith("/") and (file := bucket.file(key)):
        return [file]
    else:
        keys = bucket.list(base)
    by_name = {key.removeprefix(f"{base}/") if base else key: key for key in keys}
    return [bucket.open(by_name[name], name) for name in _data(by_name, any_suffix, last)]


def _matches_prefix(key: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a glob matches the key, or a folder that contains it."""
    return any(_matches(key[:end], pattern) for end in range(1, len(key) + 1))


def _data(names: Iterable[str], any_suffix: bool, last: str = "") -> list[str]:
    """The names of data files, sorted. last: the last part of the glob pattern; if it starts with `_`, so may names."""
    return sorted(
        name
        for name in names
        if not any(part[0] == "." or (part[0] == "_" and last[:1] != "_") for part in PurePosixPath(name).parts)
        and (any_suffix or format_of(name))
    )


def _fixed(parts: Iterable[str]) -> list[str]:
    """The parts before the first with a wildcard."""
    return list(takewhile(lambda part: not MAGIC.search(part), parts))


def _matches(key: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a glob matches the key as in a shell: `*` matches within a name, `**` across folders."""
    if not pattern:
        return not key
    if pattern[0] == "**":
        return any(_matches(key[start:], pattern[1:]) for start in range(len(key) + 1))
    return bool(key) and fnmatch.fnmatchcase(key[0], pattern[0]) and _matches(key[1:], pattern[1:])
