"""Which files an INPUT names: one file, the data files of a folder, what a glob finds; here or at `s3://`."""

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
    """The files, sorted by name.

    Of a folder or a glob those whose suffix names a format, or all where `any_suffix`; hidden files, and those whose
    name begins with `_`, are none of its data.  Raises InputNotFound where there is none, WrongUsage for an address
    that cannot be read.
    """
    files = _in_bucket(source, any_suffix) if source.startswith(SCHEME) else _local(source, any_suffix)
    if not files:
        raise InputNotFound(
            f"{source} names no data file", remedy=f"data files end in {', '.join(SUFFIXES)}; or name one file"
        )
    return files


def _local(source: str, any_suffix: bool) -> list[InputFile]:
    path = Path(source)
    try:
        if MAGIC.search(source) and not path.exists():
            return _found(source, any_suffix)
        if path.is_dir():
            return [LocalFile.of(path / name, name) for name in _data(_walk(path), any_suffix)]
        if path.exists() and not path.is_file():
            raise InputNotFound(f"{path} is not a regular file", remedy="name CSV, JSON lines or Parquet files")
        return [LocalFile.of(path)]
    except OSError as error:
        cause = f"{error.filename or source}: {error.strerror}"
        raise InputNotFound(cause, remedy="check the path and its permissions") from error


def _found(pattern: str, any_suffix: bool) -> list[InputFile]:
    """What a glob finds: files, and the data files of folders."""
    base = Path(*_fixed(Path(pattern).parts))
    names: set[str] = set()
    for hit in map(Path, glob.iglob(pattern, recursive=True)):
        names.update((hit / name).relative_to(base).as_posix() for name in (_walk(hit) if hit.is_dir() else ["."]))
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
    base, asked = key.strip("/"), ""
    if MAGIC.search(key):
        parts = key.rstrip("/").split("/")
        base, asked = "/".join(_fixed(parts)), parts[-1]
        keys = [each for each in bucket.list(base) if _finds(each.split("/"), parts)]
    elif key and not key.endswith("/") and (file := bucket.file(key)):
        return [file]
    else:
        keys = bucket.list(base)
    inner = {key.removeprefix(f"{base}/") if base else key: key for key in keys}
    return [bucket.open(inner[name], name) for name in _data(inner, any_suffix, asked)]


def _finds(key: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a glob finds the key, or a folder that holds it."""
    return any(_matches(key[:end], pattern) for end in range(1, len(key) + 1))


def _data(names: Iterable[str], any_suffix: bool, asked: str = "") -> list[str]:
    """Names of data files, sorted; `asked`: the last part of a pattern, which may ask for `_` names itself."""
    return sorted(
        name
        for name in names
        if not any(part[0] == "." or (part[0] == "_" and asked[:1] != "_") for part in PurePosixPath(name).parts)
        and (any_suffix or format_of(name))
    )


def _fixed(parts: Iterable[str]) -> list[str]:
    """The parts before the first with a wildcard."""
    return list(takewhile(lambda part: not MAGIC.search(part), parts))


def _matches(key: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a glob finds the key, as the shell has it: `*` stays within a name, `**` goes through folders."""
    if not pattern:
        return not key
    if pattern[0] == "**":
        return any(_matches(key[start:], pattern[1:]) for start in range(len(key) + 1))
    return bool(key) and fnmatch.fnmatchcase(key[0], pattern[0]) and _matches(key[1:], pattern[1:])
