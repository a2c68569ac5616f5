"""Import of images from files: OCI layouts (folder or tar), `docker save` archives, and tars of a root file system."""

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

LEVEL = 6  # gzip level for layers that arrive uncompressed
Open = Callable[[str], BinaryIO]
"""Opens a file of the archive by name; raises KeyError or FileNotFoundError if it does not exist."""


@dataclass(frozen=True, slots=True)
class Imported:
    """An image for one platform, with its layers in the store."""

    digest: str
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any], blobs: Iterable[Descriptor], digest: str) -> Imported:
        """Pair each blob with its `diff_id` from the configuration; raises InputInvalid if their numbers differ."""
        layer_blobs, diff_ids = tuple(blobs), config.get("rootfs", {}).get("diff_ids", ())
        if len(layer_blobs) != len(diff_ids):
            raise InputInvalid(
                f"the image has {len(layer_blobs)} layers, but its configuration lists {len(diff_ids)}",
                remedy="fetch it again",
            )
        layers = (Layer(blob, str(diff_id)) for blob, diff_id in zip(layer_blobs, diff_ids, strict=True))
        return cls(digest, config, tuple(layers))


def import_layout(store: Store, folder: Path, platform: Platform) -> Imported:
    """Import the image for `platform` from an OCI layout in a folder; raises InputInvalid, EngineUnavailable."""
    return _from_layout(store, lambda name: (folder / name).open("rb"), str(folder), platform)


def import_archive(store: Store, path: Path, platform: Platform) -> Imported:
    """Import the image for `platform` from a tar; any other tar becomes the only layer of a new image."""
    try:
        with tarfile.open(path) as tar:
            names = {member.name.removeprefix("./"): member for member in _first_members(tar)}

            def open_member(name: str) -> BinaryIO:
                return cast("BinaryIO", tar.extractfile(names[name] if name in names else tar.getmember(name)))

            if "oci-layout" in names:
                return _from_layout(store, open_member, str(path), platform)
            if "manifest.json" in names:
                return _from_docker(store, open_member, str(path), platform)
    except tarfile.TarError as error:
        raise InputInvalid(f"{path} is not a tar: {error}", remedy="name a folder, a tar, or an image") from error
    return _from_root(store, path, platform)


def _first_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """At most 1001 members: enough for an image's archive, without reading a large root file system."""
    for count, member in enumerate(tar):
        if count > 1000:
            return
        yield member


def _from_layout(store: Store, open_file: Open, name: str, platform: Platform) -> Imported:
    with _invalid_if_malformed(name):
        entries = json.load(open_file("index.json"))["manifests"]
        blob = _manifest(entries, open_file, platform, name)
        manifest = json.loads(_blob(open_file, blob.digest).read())
        config = json.loads(_blob(open_file, manifest["config"]["digest"]).read())
        layers = [Descriptor.parse(layer) for layer in manifest["layers"]]
        for layer in layers:
            _copy(store, layer, _blob(open_file, layer.digest), name)
        return Imported.of(_require_platform(platform, config, name), layers, blob.digest)


def _manifest(entries: list[Mapping[str, Any]], open_file: Open, platform: Platform, name: str) -> Descriptor:
    """The manifest for `platform`, also searched for in nested indexes."""
    for entry in entries:
        blob, entry_platform = Descriptor.parse(entry), entry.get("platform", {})
        if blob.media_type in INDEXES:
            return _manifest(json.loads(_blob(open_file, blob.digest).read())["manifests"], open_file, platform, name)
        if entry_platform.get("architecture", platform.architecture) == platform.architecture:
            return blob
    raise EngineUnavailable(f"{name} contains no image for {platform}", remedy="use another --base or --platform")


def _from_docker(store: Store, open_file: Open, name: str, platform: Platform) -> Imported:
    """Source: the Docker image specification v1.2, `manifest.json`."""
    with _invalid_if_malformed(name):
        first = json.load(open_file("manifest.json"))[0]
        config = json.load(open_file(first["Config"]))
        layers = []
        for layer_name in first["Layers"]:
            with open_file(layer_name) as stream:
                zipped = stream.read(2) == b"\x1f\x8b"
                stream.seek(0)
                tar = cast("BinaryIO", gzip.GzipFile(fileobj=stream)) if zipped else stream
                layers.append(zip_layer(store, tar, level=LEVEL))
        config = _require_platform(platform, config, name)
        image = Imported.of(config, [layer.blob for layer in layers], sha256_json(config))
        if any(layer.diff_id != listed.diff_id for layer, listed in zip(layers, image.layers, strict=True)):
            raise InputInvalid(f"a layer of {name} does not match its configuration", remedy="save the image again")
        return image


def _from_root(store: Store, path: Path, platform: Platform) -> Imported:
    digest = sha256_file(path)
    with tarfile.open(path) as tar:
        uncompressed = cast("BinaryIO", tar.fileobj)
        uncompressed.seek(0)
        layer = zip_layer(store, uncompressed, level=LEVEL)
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id]}
    return Imported.of({**platform.document, "rootfs": rootfs, "config": {}}, [layer.blob], digest)


def _require_platform(platform: Platform, config: dict[str, Any], name: str) -> dict[str, Any]:
    if config.get("architecture") != platform.architecture:
        raise EngineUnavailable(
            f"{name} is for {config.get('architecture')}, but the image is for {platform}",
            remedy="use another --base or --platform",
        )
    return config


def _blob(open_file: Open, digest: str) -> IO[bytes]:
    return open_file(f"blobs/sha256/{digest.removeprefix(PREFIX)}")


def _copy(store: Store, blob: Descriptor, source: IO[bytes], name: str) -> None:
    with source, store.staged() as (stream, commit):
        shutil.copyfileobj(source, stream)
        if sha256_stream(stream) != blob.digest:
            raise InputInvalid(f"a blob in {name} does not match {blob.digest}", remedy="copy it again")
        commit(blob.digest)


@contextmanager
def _invalid_if_malformed(name: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, FileNotFoundError, AttributeError) as error:
        raise InputInvalid(f"{name} is not a readable image: {error}", remedy="save or copy it again") from error
