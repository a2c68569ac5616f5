"""URIs that a bundle answers, and the one rule by which they are found in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse


def lookup(paths: Mapping[str, Path], uri: str) -> Path | None:
    """The copy of `uri`, by the longest of `paths`' URIs that it is or lies under; None where there is none.

    What lies under a URI must be there, and inside that very copy.
    """
    asked, known = normal(uri), {normal(base): path for base, path in paths.items()}
    for base in sorted(known, key=len, reverse=True):
        if asked == base:
            return known[base]
        if asked.startswith(base + "/") and (inside := _below(known[base], asked[len(base) + 1 :])):
            return inside
    return None


def normal(uri: str) -> str:
    """One spelling a URI: no slash at the end, `file:///x` as `/x`."""
    path = local_path(uri) if uri.startswith("file:") else None
    return str(path) if path is not None else uri.rstrip("/") or "/"


def local_path(uri: str) -> Path | None:
    """The path that a `file:` URI or a plain path means; None for any other scheme."""
    parts = urlparse(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(uri) if not parts.scheme else None


def _below(root: Path, relative: str) -> Path | None:
    inside = root / relative
    return inside if inside.exists() and inside.resolve().is_relative_to(root.resolve()) else None
