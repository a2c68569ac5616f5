"""Content addresses: sha256 over bytes, files and canonical JSON."""

from __future__ import annotations

import hashlib
import json
from io import BufferedIOBase
from pathlib import Path

PREFIX = "sha256:"


def canonical_json(value: object) -> bytes:
    """`value` as canonical JSON: sorted keys, no spaces, UTF-8. Raises ValueError for NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of `data` as `sha256:` and 64 hex digits."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def sha256_json(value: object) -> str:
    """The digest of `value` as canonical JSON."""
    return sha256_bytes(canonical_json(value))


def sha256_file(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as stream:
        return sha256_stream(stream)


def sha256_stream(stream: BufferedIOBase) -> str:
    """The digest of the whole `stream`, from its start, read in chunks."""
    stream.seek(0)
    return PREFIX + hashlib.file_digest(stream, "sha256").hexdigest()
