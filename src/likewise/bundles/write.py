"""Sealing a folder that `build` has filled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from likewise.bundles.folder import inventory
from likewise.bundles.format import MANIFEST, Manifest
from likewise.bundles.open import Bundle


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Take stock of `folder` and write `likewise.json` over it; `manifest.files` is taken from the disk."""
    sealed = replace(manifest, files=inventory(folder, without=frozenset({MANIFEST})))
    (folder / MANIFEST).write_bytes(sealed.dump())
    return Bundle(folder, sealed)
