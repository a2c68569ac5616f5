"""Export of images from the store: as an OCI layout, and as the archive that Docker and Podman load."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from likewise.bundles.folder import link_or_copy
from likewise.core.digests import PREFIX
from likewise.core.errors import EngineUnavailable, OutputRefused
from likewise.core.scratch import scratch_folder
from likewise.images.oci import INDEX, INDEXES, NAME, PLATFORMS, Descriptor
from likewise.images.store import Store

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def write_layout(store: Store, name: str, folder: Path) -> Descriptor:
    """Write an image as an OCI layout into a new or empty folder; raises OutputRefused, InputNotFound."""
    image = store.find(name)
    with new_folder(folder) as stage:
        blobs = stage / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for blob in dict.fromkeys(store.reachable(image)):
            link_or_copy(store.path(blob.digest), blobs / blob.digest.removeprefix(PREFIX))
        (stage / "oci-layout").write_bytes(_LAYOUT)
        (stage / "index.json").write_bytes(_index(image, name))
    return image


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, whose content moves to the new or empty `folder` when it is complete; raises OutputRefused."""
    target = folder.resolve()
    if target.exists() and any(target.iterdir()):
        raise OutputRefused(f"{folder} is not empty", remedy="use a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(f".{target.name}.likewise-new-", target.parent) as scratch:
        stage = scratch / "new"
        stage.mkdir()
        yield stage
        if not target.exists():
            stage.rename(target)
            return
        for entry in stage.iterdir():
            entry.rename(target / entry.name)


def write_archive(store: Store, name: str, platform: str, stream: IO[bytes], alias: str = "", skip: int = 0) -> None:
    """Write a tar of the image for `platform`: an OCI layout that, with its `manifest.json`, is a Docker archive too.

    Docker before version 25 reads only the latter. alias: its name in the archive, if different. skip: number of first
    layers to list without including them, because the engine that loads the archive already has them.
    Raises InputNotFound, EngineUnavailable (not for that platform).
    """
    image, alias = for_platform(store, store.find(name), platform), alias or name
    manifest = store.document(image)
    layers = [f"blobs/sha256/{layer['digest'].removeprefix(PREFIX)}" for layer in manifest["layers"]]
    config = f"blobs/sha256/{manifest['config']['digest'].removeprefix(PREFIX)}"
    with tarfile.open(fileobj=stream, mode="w|") as tar:
        _add(tar, "oci-layout", _LAYOUT)
        _add(tar, "index.json", _index(image, alias))
        _add(tar, "manifest.json", json.dumps([{"Config": config, "RepoTags": [alias], "Layers": layers}]).encode())
        skipped = {layer["digest"] for layer in manifest["layers"][:skip]}
        for blob in dict.fromkeys(store.reachable(image)):
            if blob.digest in skipped:
                continue
            path = store.path(blob.digest)
            member = tarfile.TarInfo(f"blobs/sha256/{path.name}")
            member.size = path.stat().st_size
            with path.open("rb") as source:
                tar.addfile(member, source)


def for_platform(store: Store, image: Descriptor, platform: str) -> Descriptor:
    """The manifest for `platform`; raises EngineUnavailable if the image has none."""
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
