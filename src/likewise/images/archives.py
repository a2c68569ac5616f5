"""Images that lie in files: an OCI layout as a folder or a tar, what `docker save` writes, a root file system's tar."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from likewise.core.digests import PREFIX, sha256_file, sha256_json, sha256_stream
from likewise.core.errors import EngineUnavailable, InputInvalid
from likewise.images.layers import zip_layer
from likewise.images.oci import INDEXES, Descriptor, Layer, Platform
from likewise.images.store import Store

LEVEL = 6  # of gzip, for what comes as a plain tar: made once
Open = Callable[[str], BinaryIO]
"""A file of the archive by its name in it; KeyError or FileNotFoundError where there is none."""


@dataclass(frozen=True, slots=True)
class Imported:
    """An image for one platform whose layers are in the store."""

    digest: str
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any], blobs: Iterable[Descriptor], digest: str) -> Imported:
        """With the tar digests that the configuration has; InputInvalid where it has others than there are layers."""
        held, diff_ids = tuple(blobs), config.get("rootfs", {}).get("diff_ids", ())
        if len(held) != len(diff_ids):
            raise InputInvalid("the image has other layers than its configuration says", remedy="fetch it again")
        return cls(digest, config, tuple(Layer(blob, str(said)) for blob, said in zip(held, diff_ids, strict=True)))


def import_layout(store: Store, folder: Path, platform: Platform) -> Imported:
    """The image for `platform` of a layout in a folder; InputInvalid, EngineUnavailable."""
    return _from_layout(store, lambda name: (folder / name).open("rb"), str(folder), platform)


def import_archive(store: Store, path: Path, platform: Platform) -> Imported:
    """The image for `platform` of a tar, or the tar itself as the one layer of an image."""
    try:
        with tarfile.open(path) as tar:
            names = {member.name.removeprefix("./"): member for member in _first(tar)}

            def opened(name: str) -> BinaryIO:
                return cast("BinaryIO", tar.extractfile(names[name] if name in names else tar.getmember(name)))

            if "oci-layout" in names:
                return _from_layout(store, opened, str(path), platform)
            if "manifest.json" in names:
                return _from_docker(store, opened, str(path), platform)
    except tarfile.TarError as error:
        raise InputInvalid(f"{path} is no tar: {error}", remedy="name a folder, a tar, or an image") from error
    return _from_root(store, path, platform)


def _first(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of an archive of an image; of a root file system's, which has folders of many files, only a few."""
    for count, member in enumerate(tar):
        if count > 1000:
            return
        yield member


def _from_layout(store: Store, opened: Open, name: str, platform: Platform) -> Imported:
    with _readable(name):
        entries = json.load(opened("index.json"))["manifests"]
        blob = _manifest(entries, opened, platform, name)
        manifest = json.loads(_blob(opened, blob.digest).read())
        config = json.loads(_blob(opened, manifest["config"]["digest"]).read())
        layers = [Descriptor.parse(layer) for layer in manifest["layers"]]
        for layer in layers:
            _copy(store, layer, _blob(opened, layer.digest), name)
        return Imported.of(_for(platform, config, name), layers, blob.digest)


def _manifest(entries: list[Mapping[str, Any]], opened: Open, platform: Platform, name: str) -> Descriptor:
    """The one for `platform`, looked for below the indexes too."""
    for entry in entries:
        blob, said = Descriptor.parse(entry), entry.get("platform", {})
        if blob.media_type in INDEXES:
            return _manifest(json.loads(_blob(opened, blob.digest).read())["manifests"], opened, platform, name)
        if said.get("architecture", platform.architecture) == platform.architecture:
            return blob
    raise EngineUnavailable(f"{name} holds no image for {platform}", remedy="name another --base or --platform")


def _from_docker(store: Store, opened: Open, name: str, platform: Platform) -> Imported:
    """Source: the Docker image specification v1.2, `manifest.json`."""
    with _readable(name):
        first = json.load(opened("manifest.json"))[0]
        config = json.load(opened(first["Config"]))
        layers = []
        for each in first["Layers"]:
            with opened(each) as stream:
                zipped = stream.read(2) == b"\x1f\x8b"
                stream.seek(0)
                tar = cast("BinaryIO", gzip.GzipFile(fileobj=stream)) if zipped else stream
                layers.append(zip_layer(store, tar, level=LEVEL))
        found = Imported.of(_for(platform, config, name), [layer.blob for layer in layers], sha256_json(config))
        if any(layer.diff_id != said.diff_id for layer, said in zip(layers, found.layers, strict=True)):
            raise InputInvalid(f"a layer of {name} is not the one that its configuration names", remedy="save it again")
        return found


def _from_root(store: Store, path: Path, platform: Platform) -> Imported:
    digest = sha256_file(path)
    with tarfile.open(path) as tar:
        plain = cast("BinaryIO", tar.fileobj)
        plain.seek(0)
        layer = zip_layer(store, plain, level=LEVEL)
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id]}
    return Imported.of({**platform.document, "rootfs": rootfs, "config": {}}, [layer.blob], digest)


def _for(platform: Platform, config: dict[str, Any], name: str) -> dict[str, Any]:
    if config.get("architecture") != platform.architecture:
        raise EngineUnavailable(
            f"{name} is for {config.get('architecture')}, and the image for {platform}",
            remedy="name another --base or --platform",
        )
    return config


def _blob(opened: Open, digest: str) -> IO[bytes]:
    return opened(f"blobs/sha256/{digest.removeprefix(PREFIX)}")


def _copy(store: Store, blob: Descriptor, source: IO[bytes], name: str) -> None:
    with source, store.staged() as (stream, keep):
        shutil.copyfileobj(source, stream)
        if sha256_stream(stream) != blob.digest:
            raise InputInvalid(f"{name} has other bytes than {blob.digest} names", remedy="copy it again")
        keep(blob.digest)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, FileNotFoundError, AttributeError) as error:
        raise InputInvalid(f"{name} is no image that can be read: {error}", remedy="save or copy it again") from error
