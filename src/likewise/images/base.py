"""The base image, a Linux with Python, from a registry, an OCI layout, an archive or a root file system's tar."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from likewise.core.digests import sha256_file
from likewise.core.errors import EngineUnavailable, InputInvalid, TargetUnavailable, WrongUsage
from likewise.images.archives import Imported, import_archive, import_layout
from likewise.images.layers import machine_of
from likewise.images.oci import CONFIG, INDEXES, Descriptor, Layer, Platform, parse_name
from likewise.images.store import Store

DEFAULT = "python:3.11-slim"
_PYTHON = re.compile(r"(?:\./)?((?:usr/(?:local/)?)?bin/python3\.(\d+))")
_LIBC = re.compile(r"(?:\./)?(?:usr/)?lib(?:64)?/(?:[\w-]+/)?libc(?:\.so\.6|-2\.\d+\.so)")
_RELEASE = re.compile(rb"GNU C Library .{0,80}?release version (\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Base:
    """A base image for one platform.

    config: its OCI image configuration. layers: from bottom to top. python: path of the interpreter in the image.
    minor: version of that Python 3. glibc: major and minor version.
    """

    name: str
    digest: str
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]
    python: str
    minor: int
    glibc: tuple[int, int]


def open_base(store: Store, name: str, platform: Platform, *, fresh: bool = False) -> Base:
    """Open the base called `name`: a local folder or tar, else an image in a registry.

    A fetched base is cached; its tag is resolved again only if `fresh` is set.
    Raises WrongUsage, InputNotFound, InputInvalid, EngineUnavailable (no Python, or not for this platform), and
    the errors of the registry.
    """
    key = _cache_key(name, platform)
    entry = None if fresh else store.recall("base", key)
    if entry is None or not all(store.has(layer.blob) for layer in map(Layer.parse, entry["layers"])):
        entry = _import_base(store, name, platform)
        store.remember("base", key, entry)
    layers = tuple(Layer.parse(layer) for layer in entry["layers"])
    glibc: tuple[int, int] = (entry["glibc"][0], entry["glibc"][1])
    return Base(name, entry["digest"], entry["config"], layers, entry["python"], entry["minor"], glibc)


def _cache_key(name: str, platform: Platform) -> dict[str, object]:
    """A file is identified by its content, a folder by its index, a registry's image by its name."""
    path = Path(name)
    if path.is_file():
        return {"platform": str(platform), "file": sha256_file(path)}
    if (path / "index.json").is_file():
        return {"platform": str(platform), "layout": sha256_file(path / "index.json")}
    return {"platform": str(platform), "name": str(parse_name(name).on_hub)}


def _import_base(store: Store, name: str, platform: Platform) -> dict[str, Any]:
    image = _fetch(store, name, platform)
    python, minor, glibc = _inspect_layers(store, name, image.layers, platform)
    return {
        "digest": image.digest,
        "config": dict(image.config),
        "layers": [layer.document for layer in image.layers],
        "kept": [layer.blob.digest for layer in image.layers],
        "python": python,
        "minor": minor,
        "glibc": list(glibc),
    }


def _fetch(store: Store, name: str, platform: Platform) -> Imported:
    path = Path(name)
    if path.is_dir():
        return import_layout(store, path, platform)
    if path.is_file():
        return import_archive(store, path, platform)
    if path.is_absolute() or name.startswith("."):
        raise WrongUsage(f"no base image at {name}", remedy="name a folder, a tar, or an image in a registry")
    try:
        return _pull(store, name, platform)
    except TargetUnavailable as error:
        local = "or use a base on this machine, a tar or a folder (docs/images.md): --base FILE, or -C base=FILE"
        cause = f"the base image cannot be pulled: {error.cause}"
        raise TargetUnavailable(cause, remedy=f"{error.remedy}; {local}") from error


def _pull(store: Store, name: str, platform: Platform) -> Imported:
    from likewise.images.registry import Registry  # needs the extra `images`
    from likewise.images.transfer import pull_blob

    image = parse_name(name).on_hub
    with Registry(image.registry) as registry:
        manifest = registry.manifest(image)
        if manifest.blob.media_type in INDEXES:
            chosen = choose(manifest.document.get("manifests", ()), platform, name)
            manifest = registry.manifest(type(image)(image.registry, image.repository, digest=chosen.digest))
        try:
            config = Descriptor.parse({**manifest.document["config"], "mediaType": CONFIG})
            layers = [Descriptor.parse(layer) for layer in manifest.document["layers"]]
        except (KeyError, TypeError, ValueError) as error:
            raise TargetUnavailable(f"the manifest of {name} is malformed", remedy="use another --base") from error
        for blob in (config, *layers):
            pull_blob(registry, image.repository, blob, store)
    return Imported.of(store.document(config), layers, manifest.blob.digest)


def choose(manifests: Any, platform: Platform, name: str) -> Descriptor:
    """The entry for `platform` in an index; raises EngineUnavailable if there is none."""
    offered = []
    for entry in manifests:
        offered_platform = entry.get("platform", {})
        os, architecture = offered_platform.get("os"), offered_platform.get("architecture")
        offered.append(f"{os}/{architecture}")
        if os == "linux" and architecture == platform.architecture:
            return Descriptor.parse(entry)
    raise EngineUnavailable(
        f"{name} is not available for {platform}, only for {', '.join(sorted(set(offered)))}",
        remedy="use another --base",
    )


def _inspect_layers(
    store: Store, name: str, layers: tuple[Layer, ...], platform: Platform
) -> tuple[str, int, tuple[int, int]]:
    """Path and minor version of Python, and the version of glibc."""
    pythons: dict[str, int] = {}
    glibc = (0, 0)
    for layer in layers:
        try:
            with tarfile.open(store.path(layer.blob.digest), mode="r|*") as tar:
                for member in tar:
                    if member.isreg() and (match := _PYTHON.fullmatch(member.name)):
                        _check_machine(_read(tar, member), name, platform)
                        pythons[match[1]] = int(match[2])
                    elif member.isreg() and _LIBC.fullmatch(member.name):
                        release = _RELEASE.search(_read(tar, member))
                        glibc = (int(release[1]), int(release[2])) if release else glibc
        except (tarfile.TarError, zlib.error, EOFError) as error:
            raise InputInvalid(
                f"a layer of {name} cannot be read ({layer.blob.media_type}): {error}",
                remedy="use a base with gzipped layers",
            ) from error
    if not pythons or glibc == (0, 0):
        missing = "Python 3" if glibc != (0, 0) else "the GNU C library"
        raise EngineUnavailable(f"the base {name} lacks {missing}", remedy=f"use a base that has it: --base {DEFAULT}")
    first = min(pythons, key=lambda path: ("local" not in path, path))
    return f"/{first}", pythons[first], glibc


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return cast("IO[bytes]", tar.extractfile(member)).read()  # not None for a regular file


def _check_machine(data: bytes, name: str, platform: Platform) -> None:
    if machine_of(data[:20]) not in (None, platform.elf):
        raise EngineUnavailable(
            f"the base {name} is not for {platform}: its Python is compiled for another CPU",
            remedy="use another --base or --platform",
        )
