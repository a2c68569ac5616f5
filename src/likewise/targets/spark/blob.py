"""Files that executors hand to each other and to the driver: a line of JSON and bytes, there only when whole."""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECK = "bytes"  # in the header: length and CRC-32 of each body


def write(path: Path, header: Mapping[str, object], *bodies: bytes) -> None:
    """Write `path` beside it and rename, so that of two writers of one name the later wins whole; OSError."""
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
    """The header; None where the file is not there or not of the length that its header says."""
    try:
        with path.open("rb") as stream:
            line = stream.readline()
            there = os.fstat(stream.fileno()).st_size
        found: dict[str, Any] = json.loads(line)
        return found if there == len(line) + sum(length for length, _ in found[CHECK]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """Header and bodies; OSError where it cannot be read or its bytes are not those that were written."""
    with path.open("rb") as stream:
        found: dict[str, Any] = json.loads(stream.readline())
        bodies = [stream.read(length) for length, _ in found[CHECK]]
    if [[len(body), zlib.crc32(body)] for body in bodies] != found[CHECK]:
        raise OSError(5, "its bytes are not those that were written", str(path))
    return found, bodies
