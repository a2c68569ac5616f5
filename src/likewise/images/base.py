"""What an image stands on: a Linux with Python in it, from a registry, a layout, an archive or a root's tar."""

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
    """A base for one platform.

    config: as the OCI image configuration has it. layers: in order. python: its path in the image. minor: of Python 3.
    glibc: its version.
    """

    name: str
    digest: str
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]
    python: str
    minor: int
    glibc: tuple[int, int]


def open_base(store: Store, name: str, platform: Platform, *, fresh: bool = False) -> Base:
    """The base called `name`: a folder or a tar of this disk, else an image in a registry.

    One that was fetched is kept: its tag is looked up again only where `fresh` asks for that.
    Raises WrongUsage, InputNotFound, InputInvalid, EngineUnavailable (no Python in it, or not for this platform), and
    what the registry raises.
    """
    what = _what(name, platform)
    known = None if fresh else store.recall("base", what)
    if known is None or not all(store.has(layer.blob) for layer in map(Layer.parse, known["layers"])):
        known = _remembered(store, name, platform)
        store.remember("base", what, known)
    layers = tuple(Layer.parse(layer) for layer in known["layers"])
    seen: tuple[int, int] = (known["glibc"][0], known["glibc"][1])
    return Base(name, known["digest"], known["config"], layers, known["python"], known["minor"], seen)


def _what(name: str, platform: Platform) -> dict[str, object]:
    """A file is known by its bytes, a folder by its index, an image by its name."""
    path = Path(name)
    if path.is_file():
        return {"platform": str(platform), "file": sha256_file(path)}
    if (path / "index.json").is_file():
        return {"platform": str(platform), "layout": sha256_file(path / "index.json")}
    return {"platform": str(platform), "name": str(parse_name(name).on_hub)}


def _remembered(store: Store, name: str, platform: Platform) -> dict[str, Any]:
    found = _fetched(store, name, platform)
    python, minor, glibc = _look(store, name, found.layers, platform)
    return {
        "digest": found.digest,
        "config": dict(found.config),
        "layers": [layer.document for layer in found.layers],
        "kept": [layer.blob.digest for layer in found.layers],
        "python": python,
        "minor": minor,
        "glibc": list(glibc),
    }


def _fetched(store: Store, name: str, platform: Platform) -> Imported:
    path = Path(name)
    if path.is_dir():
        return import_layout(store, path, platform)
    if path.is_file():
        return import_archive(store, path, platform)
    if path.is_absolute() or name.startswith("."):
        raise WrongUsage(f"there is no base at {name}", remedy="name a folder, a tar, or an image in a registry")
    return _pulled(store, name, platform)


def _pulled(store: Store, name: str, platform: Platform) -> Imported:
    from likewise.images.registry import Registry  # the extra `images`
    from likewise.images.transfer import pull_blob

    image = parse_name(name).on_hub
    with Registry(image.registry) as registry:
        found = registry.manifest(image)
        if found.blob.media_type in INDEXES:
            chosen = choose(found.document.get("manifests", ()), platform, name)
            found = registry.manifest(type(image)(image.registry, image.repository, digest=chosen.digest))
        try:
            config = Descriptor.parse({**found.document["config"], "mediaType": CONFIG})
            layers = [Descriptor.parse(layer) for layer in found.document["layers"]]
        except (KeyError, TypeError, ValueError) as error:
            raise TargetUnavailable(f"{name} has a manifest that cannot be read", remedy="name another base") from error
        for blob in (config, *layers):
            pull_blob(registry, image.repository, blob, store)
    return Imported.of(store.document(config), layers, found.blob.digest)


def choose(manifests: Any, platform: Platform, name: str) -> Descriptor:
    """The entry of an index for `platform`; EngineUnavailable where it has none."""
    offered = []
    for entry in manifests:
        said = entry.get("platform", {})
        offered.append(f"{said.get('os')}/{said.get('architecture')}")
        if said.get("os") == "linux" and said.get("architecture") == platform.architecture:
            return Descriptor.parse(entry)
    raise EngineUnavailable(
        f"{name} is not there for {platform}, but for {', '.join(sorted(set(offered)))}", remedy="name another --base"
    )


def _look(store: Store, name: str, layers: tuple[Layer, ...], platform: Platform) -> tuple[str, int, tuple[int, int]]:
    """Where Python is, which it is, and the version of the C library."""
    pythons: dict[str, int] = {}
    glibc = (0, 0)
    for layer in layers:
        try:
            with tarfile.open(store.path(layer.blob.digest), mode="r|*") as tar:
                for member in tar:
                    if member.isreg() and (found := _PYTHON.fullmatch(member.name)):
                        _check_machine(_part(tar, member), name, platform)
                        pythons[found[1]] = int(found[2])
                    elif member.isreg() and _LIBC.fullmatch(member.name):
                        release = _RELEASE.search(_part(tar, member))
                        glibc = (int(release[1]), int(release[2])) if release else glibc
        except (tarfile.TarError, zlib.error, EOFError) as error:
            raise InputInvalid(
                f"a layer of {name} cannot be read ({layer.blob.media_type}): {error}",
                remedy="name a base with gzipped layers",
            ) from error
    if not pythons or glibc == (0, 0):
        lacks = "a Python 3" if glibc != (0, 0) else "the GNU C library"
        raise EngineUnavailable(f"the base {name} lacks {lacks}", remedy=f"name one that has it: --base {DEFAULT}")
    first = min(pythons, key=lambda path: ("local" not in path, path))
    return f"/{first}", pythons[first], glibc


def _part(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return cast("IO[bytes]", tar.extractfile(member)).read()  # it is a regular file


def _check_machine(data: bytes, name: str, platform: Platform) -> None:
    if machine_of(data[:20]) not in (None, platform.elf):
        raise EngineUnavailable(
            f"the base {name} is not for {platform}: its Python is compiled for another CPU",
            remedy="name another --base, or another --platform",
        )
