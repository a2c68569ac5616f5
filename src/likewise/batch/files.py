"""Input files wherever they lie: their names, sizes and identities, and their bytes.

name: as messages give it. short: as the quarantine gives it. size: bytes. identity: another one for other content.
path: None where it is not on this machine. open: a binary file that can seek, which `pyarrow` reads too. now: the
identity as it is now. Both raise OSError where the file has gone.
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

BUFFER = 1 << 20  # bytes a read
COMPRESSED = ".gz"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine; its identity is its size and the time of its last change."""

    path: Path
    short: str
    size: int
    identity: str

    @classmethod
    def of(cls, path: Path, short: str | None = None) -> LocalFile:
        """OSError where there is no such file."""
        return cls(path, short or path.name, path.stat().st_size, _identity(path))

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def open(self) -> BinaryIO:
        """The file from its beginning."""
        return self.path.open("rb", buffering=BUFFER)

    def now(self) -> str:
        """The identity as it is now."""
        return _identity(self.path)


InputFile = LocalFile | S3File


def _identity(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} bytes of {stat.st_mtime_ns}"


class Reading:
    """An open text file, decompressed where its name ends in `.gz`. offset: bytes taken from the file itself."""

    def __init__(self, file: InputFile) -> None:
        self._raw = file.open()
        if not isinstance(self._raw, io.BufferedReader):
            self._raw = io.BufferedReader(self._raw, BUFFER)
        packed = file.name.lower().endswith(COMPRESSED)
        self.stream: Any = io.BufferedReader(gzip.GzipFile(fileobj=self._raw), BUFFER) if packed else self._raw

    @property
    def offset(self) -> int:
        return int(self._raw.tell())

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self._raw.close()


@contextmanager
def readable(file: InputFile) -> Iterator[None]:
    """What the system says against reading, as InputNotFound or InputInvalid."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        cause = f"{file.name}: {error.strerror or error}"
        raise InputNotFound(cause, remedy="check the path and its permissions") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputInvalid(f"{file.name} is not whole as gzip: {error}", remedy="write the file again") from error
    except OSError as error:
        cause = f"{file.name} cannot be read on: {error.strerror or error}"
        raise InputInvalid(cause, remedy="check the disk, or the connection") from error


def why_changed(file: InputFile) -> str | None:
    """A sentence where `file` is no longer what it was, else None; OSError where that cannot be told."""
    try:
        now = file.now()
    except FileNotFoundError:
        return f"{file.name} has gone while it was read"
    return None if now == file.identity else f"{file.name} changed while it was read: {now}, it was {file.identity}"
