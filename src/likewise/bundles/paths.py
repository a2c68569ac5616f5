"""Names of files, as archives and manifests of untrusted origin give them."""

from __future__ import annotations

from pathlib import PurePosixPath

from likewise.core.errors import UnsafeArchive


def safe_relative(name: str) -> str:
    """`name` itself where it stays inside its folder; UnsafeArchive where it is absolute, climbs or hides a control."""
    parts = PurePosixPath(name).parts
    clean = "/".join(parts)
    if not parts or name != clean or name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
        raise UnsafeArchive(
            f"the path {name!r} does not stay inside its folder, or is not a plain path",
            remedy="do not use this archive; ask its maker for one made with `likewise bundle`",
        )
    return name
