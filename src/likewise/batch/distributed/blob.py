"""Files that workers and the driver exchange: a header line of JSON, then bodies of bytes; written atomically."""

from __future__ import annotations

import errno
import json
import os
import uuid
import zlib
from collections.abc import Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from likewise.core.private_files import open_file

CHECK = "bytes"  # in the header: length and CRC-32 of each body


class CorruptError(OSError):
    """The bytes of a file are not those that were written."""


def write(path: Path, header: Mapping[str, object], *bodies: bytes) -> None:
    """Write a temporary file and rename it to `path`, so that the last of several writers wins; OSError on failure."""
    check = [[len(body), zlib.crc32(body)] for body in bodies]
    stage = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with stage.open("xb") as stream:
            stream.write(json.dumps({**header, CHECK: check}).encode() + b"\n")
            stream.writelines(bodies)
            stream.flush()
            os.fsync(stream.fileno())
        stage.replace(path)
    except BaseException:
        stage.unlink(missing_ok=True)
        raise


def header(path: Path) -> dict[str, Any] | None:
    """The header; None if the file is missing or its length differs from the one in its header."""
    try:
        with open_file(path, "rb") as stream:
            line = stream.readline()
            size = os.fstat(stream.fileno()).st_size
        fields: dict[str, Any] = json.loads(line)
        return fields if size == len(line) + sum(length for length, _ in fields[CHECK]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """Header and bodies; CorruptError if they are not those that were written, another OSError if reading fails."""
    with open_file(path, "rb") as stream:
        line, rest = stream.readline(), stream.read()
    try:
        fields: dict[str, Any] = json.loads(line)
        ends = list(accumulate(length for length, _ in fields[CHECK]))
        bodies = [rest[start:end] for start, end in pairwise([0, *ends])]
        intact = [[len(body), zlib.crc32(body)] for body in bodies] == fields[CHECK]
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise CorruptError(errno.EIO, "the file is corrupt: its checksums do not match", str(path))
    return fields, bodies
