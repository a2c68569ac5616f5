"""An image of the store as files: an OCI layout of its own, and the archive that Docker and Podman load."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import IO

from likewise.bundles.folder import link_or_copy
from likewise.core.digests import PREFIX
from likewise.core.errors import EngineUnavailable, OutputRefused
from likewise.images.oci import INDEX, INDEXES, NAME, PLATFORMS, Descriptor
from likewise.images.store import Store

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def write_layout(store: Store, name: str, folder: Path) -> Descriptor:
    """The image called `name` as an OCI image layout in the new or empty folder; OutputRefused, InputNotFound."""
    image = store.find(name)
    if folder.exists() and any(folder.iterdir()):
        raise OutputRefused(f"{folder} is not empty", remedy="name a new folder")
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for blob in dict.fromkeys(store.reachable(image)):
        link_or_copy(store.path(blob.digest), blobs / blob.digest.removeprefix(PREFIX))
    (folder / "oci-layout").write_bytes(_LAYOUT)
    (folder / "index.json").write_bytes(_index(image, name))
    return image


def write_archive(store: Store, name: str, platform: str, stream: IO[bytes], called: str = "", held: int = 0) -> None:
    """A tar of the image for `platform`: an OCI layout which is, by its `manifest.json`, a Docker archive too.

    Docker before 25 knows only the second. called: its name in there, where it is another. held: first layers that
    are named and left out, as whoever loads it has them.
    Raises InputNotFound, EngineUnavailable (not for that platform).
    """
    image, called = for_platform(store, store.find(name), platform), called or name
    manifest = store.document(image)
    layers = [f"blobs/sha256/{layer['digest'].removeprefix(PREFIX)}" for layer in manifest["layers"]]
    config = f"blobs/sha256/{manifest['config']['digest'].removeprefix(PREFIX)}"
    with tarfile.open(fileobj=stream, mode="w|") as tar:
        _add(tar, "oci-layout", _LAYOUT)
        _add(tar, "index.json", _index(image, called))
        _add(tar, "manifest.json", json.dumps([{"Config": config, "RepoTags": [called], "Layers": layers}]).encode())
        left_out = {layer["digest"] for layer in manifest["layers"][:held]}
        for blob in dict.fromkeys(store.reachable(image)):
            if blob.digest in left_out:
                continue
            path = store.path(blob.digest)
            member = tarfile.TarInfo(f"blobs/sha256/{path.name}")
            member.size = path.stat().st_size
            with path.open("rb") as source:
                tar.addfile(member, source)


def for_platform(store: Store, image: Descriptor, platform: str) -> Descriptor:
    """The manifest for `platform`; EngineUnavailable where the image has none."""
    if image.media_type in INDEXES:
        for entry in store.document(image)["manifests"]:
            if entry["platform"]["architecture"] == PLATFORMS[platform].architecture:
                return Descriptor.parse(entry)
    else:
        config = store.document(Descriptor.parse(store.document(image)["config"]))
        if config["architecture"] == PLATFORMS[platform].architecture:
            return image
    raise EngineUnavailable(f"the image is not for {platform}", remedy=f"build it with --platform {platform}")


def _index(image: Descriptor, name: str) -> bytes:
    entry = {**image.document, "annotations": {NAME: name, "io.containerd.image.name": name}}
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
