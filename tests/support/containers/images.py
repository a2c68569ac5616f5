"""Minimal images and base images that do not run, for tests of how their bytes are processed."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

from likewise.images.layers import LayerEntry, make_layer
from likewise.images.oci import CONFIG, INDEX, MANIFEST, PLATFORMS, Descriptor
from likewise.images.store import Store

AMD64 = PLATFORMS["linux/amd64"]
ARM64 = PLATFORMS["linux/arm64"]


def elf(machine: int, text: bytes = b"") -> bytes:
    """The header of a little-endian 64-bit ELF file for a machine type, followed by `text`."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine) + text


def small_base(path: Path, *, machine: int = 62, minor: int = 11, libc: str = "2.36") -> Path:
    """Write the tar of a root file system with fake files for Python and the C library, which only show versions."""
    release = f"GNU C Library (x) stable release version {libc}.".encode()
    files = {
        f"usr/bin/python3.{minor}": elf(machine),
        "usr/lib/x86_64-linux-gnu/libc.so.6": elf(machine, release),
    }
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
    return path


def small_image(store: Store, name: str, parts: list[bytes], bundle: str = "sha256:" + "ab" * 32) -> Descriptor:
    """An image in the store with one layer per part, each with one file."""
    layers = [make_layer(store, [LayerEntry.of(f"data/{n}", part)], AMD64, level=0) for n, part in enumerate(parts)]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": store.put(CONFIG, {**config, "config": {}}).document,
        "layers": [layer.blob.document for layer in layers],
        "annotations": {"likewise.bundle": bundle},
    }
    image = store.put(MANIFEST, manifest)
    store.name(name, image)
    return image


def pair(store: Store, name: str, one: Descriptor, other: Descriptor) -> Descriptor:
    """A multi-platform index of two images: amd64 and arm64."""
    entries = [
        {**one.document, "platform": AMD64.document},
        {**other.document, "platform": ARM64.document},
    ]
    image = store.put(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    store.name(name, image)
    return image
