"""Input files on this machine or in S3: names, sizes, identities and content.

Common attributes: name, for messages; short, for the quarantine; size, in bytes; identity, which changes with the
content; path, None for a file that is not on this machine. `open` returns a seekable binary file, which `pyarrow` can
read too; `now` returns the current identity. Both raise OSError if the file no longer exists.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from likewise.batch.s3 import S3File
from likewise.core.errors import InputInvalid, InputNotFound

BUFFER = 1 << 20  # bytes per read
COMPRESSED = ".gz"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on this machine, identified by its size and modification time."""

    path: Path
    short: str
    size: int
    identity: str

    @classmethod
    def of(cls, path: Path, short: str | None = None) -> LocalFile:
        """The file at `path`. short: default is the file name. Raises OSError if it does not exist."""
        return cls(path, short or path.name, path.stat().st_size, _identity(path))

    @property
    def name(self) -> str:
        """The path as text."""
        return str(self.path)

    def open(self) -> BinaryIO:
        """Open the file for reading from its start."""
        return self.path.open("rb", buffering=BUFFER)

    def now(self) -> str:
        """The current identity."""
        return _identity(self.path)


InputFile = LocalFile | S3File


def _identity(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} bytes of {stat.st_mtime_ns}"


class Reading:
    """An open text file, decompressed if its name ends in `.gz`. A context manager.

    stream: the decompressed bytes. offset: bytes read from the file itself, before decompression.
    """

    def __init__(self, file: InputFile) -> None:
        self._raw = file.open()
        if not isinstance(self._raw, io.BufferedReader):
            self._raw = io.BufferedReader(self._raw, BUFFER)
        compressed = file.name.lower().endswith(COMPRESSED)
        self.stream: Any = io.BufferedReader(gzip.GzipFile(fileobj=self._raw), BUFFER) if compressed else self._raw

    @property
    def offset(self) -> int:
        return int(self._raw.tell())

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self._raw.close()


@contextmanager
def read_errors(file: InputFile) -> Iterator[None]:
    """Convert operating system errors while reading `file` to InputNotFound or InputInvalid."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        cause = f"{file.name}: {error.strerror or error}"
        raise InputNotFound(cause, remedy="check the path and its permissions") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        cause = f"{file.name} is not a complete gzip file: {error}"
        raise InputInvalid(cause, remedy="the file is damaged: create or copy it again") from error
    except OSError as error:
        cause = f"reading {file.name} failed: {error.strerror or error}"
        raise InputInvalid(cause, remedy="check the disk, or the connection") from error


def why_changed(file: InputFile) -> str | None:
    """A message if `file` has changed since it was listed, else None; OSError if it cannot be checked."""
    try:
        now = file.now()
    except FileNotFoundError:
        return f"{file.name} was deleted while it was read"
    return None if now == file.identity else f"{file.name} changed while it was read: {now}, was {file.identity}"
