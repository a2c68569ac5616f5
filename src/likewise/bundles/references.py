"""How URIs are resolved to the vendored copies in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse


def lookup(paths: Mapping[str, Path], uri: str) -> Path | None:
    """The local copy of `uri`: matched by the longest URI in `paths` that equals it or is its parent; None if none is.

    A path below a parent URI must exist inside that parent's copy.
    """
    wanted, known = normal(uri), {normal(base): path for base, path in paths.items()}
    for base in sorted(known, key=len, reverse=True):
        if wanted == base:
            return known[base]
        if wanted.startswith(base + "/") and (inside := _below(known[base], wanted[len(base) + 1 :])):
            return inside
    return None


def normal(uri: str) -> str:
    """The canonical form of a URI: no trailing slash, `file:///x` as `/x`."""
    path = local_path(uri) if uri.startswith("file:") else None
    return str(path) if path is not None else uri.rstrip("/") or "/"


def local_path(uri: str) -> Path | None:
    """The local path of a `file:` URI or a plain path; None for any other scheme."""
    parts = urlparse(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(uri) if not parts.scheme else None


def _below(root: Path, relative: str) -> Path | None:
    inside = root / relative
    return inside if inside.exists() and inside.resolve().is_relative_to(root.resolve()) else None
