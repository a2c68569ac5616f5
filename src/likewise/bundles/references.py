"""How URIs are resolved to the vendored copies in a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

from likewise.core.uris import without_secrets


def normal(uri: str) -> str:
    """The canonical form of a URI: no user information, query and fragment, no trailing slash, `file:///x` as `/x`."""
    return spelled(without_secrets(uri))


def spelled(uri: str) -> str:
    """`normal` with user information, query and fragment, for fetching."""
    path = local_path(uri) if uri.startswith("file:") else None
    return str(path) if path is not None else uri.rstrip("/") or "/"


def lookup(paths: Mapping[str, Path], uri: str, form: Callable[[str], str] = normal) -> Path | None:
    """The local copy of `uri`: matched by the longest URI in `paths` that equals it or is its parent; None if none is.

    A path below a parent URI must exist inside that parent's copy.  form: which URIs are equal, `normal` or `spelled`.
    """
    wanted, known = form(uri), {form(base): path for base, path in paths.items()}
    for base in sorted(known, key=len, reverse=True):
        if wanted == base:
            return known[base]
        if wanted.startswith(base + "/") and (inside := _below(known[base], wanted[len(base) + 1 :])):
            return inside
    return None


def local_path(uri: str) -> Path | None:
    """The local path of a `file:` URI or a plain path; None for any other scheme."""
    parts = urlparse(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(uri) if not parts.scheme else None


def _below(root: Path, relative: str) -> Path | None:
    inside = root / relative
    return inside if inside.exists() and inside.resolve().is_relative_to(root.resolve()) else None
