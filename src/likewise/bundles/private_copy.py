"""Copies a bundle that other users could change while it is used, or to which other programs added files."""

from __future__ import annotations

import tarfile
from functools import partial
from pathlib import Path
from typing import BinaryIO

from likewise.bundles.cache import cache_folder
from likewise.bundles.folder import add_files, added_by_others
from likewise.bundles.format import MANIFEST, load_manifest
from likewise.core.digests import PREFIX, sha256_bytes
from likewise.core.unpack import unpacked


def private_copy(folder: Path) -> Path:
    """A copy of the bundle `folder` in this user's cache, made unless there is one; its files are not verified yet.

    What other programs added to the folder is not copied.
    """
    manifest = (folder / MANIFEST).read_bytes()
    key = sha256_bytes(manifest).removeprefix(PREFIX)
    return unpacked(cache_folder("opened"), key, partial(_copy, folder, manifest))


def _copy(folder: Path, manifest: bytes, stream: BinaryIO) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        added = added_by_others(folder, load_manifest(manifest).files)
        add_files(tar, folder, instead={MANIFEST: manifest}, without=added)  # the key is the digest of these bytes
