"""Content addresses: sha256 over bytes, files and canonical JSON."""

from __future__ import annotations

import hashlib
import json
from io import BufferedIOBase
from pathlib import Path

PREFIX = "sha256:"


def canonical_json(value: object) -> bytes:
    """One byte string a value: keys sorted, no spaces, UTF-8; NaN refused (ValueError)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_bytes(data: bytes) -> str:
    """`sha256:` and 64 hex digits."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def sha256_json(value: object) -> str:
    """The digest of the canonical form."""
    return sha256_bytes(canonical_json(value))


def sha256_file(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as stream:
        return sha256_stream(stream)


def sha256_stream(stream: BufferedIOBase) -> str:
    """The digest of all that can be read of `stream`, from its beginning, read in pieces."""
    stream.seek(0)
    return PREFIX + hashlib.file_digest(stream, "sha256").hexdigest()
