"""The environment layer: files of the locked wheels, Likewise's package, byte code, and the programs of the image."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import marshal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from likewise.core.digests import sha256_bytes
from likewise.core.errors import EngineUnavailable
from likewise.core.extras import need
from likewise.core.unpack import package_digest, package_files
from likewise.images.base import Base
from likewise.images.layers import LayerEntry, make_layer
from likewise.images.store import Part
from likewise.images.wheels import Wheel, Wheels, lock_text
from likewise.shipping.environment import OURS, PACKAGE

LEVEL = 6  # gzip level; the layer is built once and sent to every registry
HOME = "opt/likewise"
PREFIX = f"{HOME}/python"
BIN = f"{HOME}/bin"
ENTRYPOINT = ("python", "-m", "likewise.container")
SERVE = "serve"
FORMAT = 2  # version of this layer's format; increase it when the same wheels give other files


def site(minor: int) -> str:
    """The image's site-packages folder."""
    return f"{PREFIX}/lib/python3.{minor}/site-packages"


def environment_layer(
    base: Base, wheels: Wheels, locked: Sequence[Wheel], *, left_out: Mapping[str, Sequence[str]]
) -> Part:
    """The environment layer, shared by all models that need the same wheels.

    left_out: by distribution, patterns of files to exclude.
    Raises EngineUnavailable (a wheel is unreadable or for another CPU), UnsafeArchive.
    """
    inputs: dict[str, object] = {
        "format": FORMAT,
        "wheels": sha256_bytes(lock_text(locked).encode()),
        "ours": package_digest(PACKAGE),
        "version": importlib.metadata.version(OURS),
        "platform": str(wheels.platform),
        "python": [base.python, base.minor],
        "left_out": sorted(left_out.items()),
        "byte_code": sha256_bytes(importlib.util.MAGIC_NUMBER) if _can_compile(base.minor) else "",
    }
    entries = unique_entries(_entries(base, wheels, locked, left_out))
    return wheels.store.layer(inputs, lambda: make_layer(wheels.store, entries, wheels.platform, level=LEVEL))


def _entries(
    base: Base, wheels: Wheels, locked: Sequence[Wheel], left_out: Mapping[str, Sequence[str]]
) -> Iterator[LayerEntry]:
    yield LayerEntry(f"{BIN}/python", target=base.python)
    command = " ".join((*ENTRYPOINT, SERVE))
    yield LayerEntry.of(f"{BIN}/{SERVE}", f"#!/bin/sh\nexec {command}\n".encode(), executable=True)
    yield LayerEntry.of(f"{HOME}/environment.lock", lock_text(locked).encode())
    for wheel in locked:
        yield from with_byte_code(_wheel_files(wheels.checked(wheel), base.minor, left_out), base.minor)
    yield from with_byte_code(_own_package(site(base.minor)), base.minor)


def unique_entries(entries: Iterable[LayerEntry]) -> Iterator[LayerEntry]:
    """The first entry of each name: distributions may share files, and Docker rejects duplicates in a layer."""
    seen: set[str] = set()
    for entry in entries:
        if entry.name not in seen:
            seen.add(entry.name)
            yield entry


def _wheel_files(path: Path, minor: int, left_out: Mapping[str, Sequence[str]]) -> Iterator[LayerEntry]:
    """The files of a wheel at their installed paths, except scripts, headers and RECORD."""
    source = need("installer.sources", extra="images").WheelFile
    utils = need("packaging.utils", extra="images")
    patterns = left_out.get(utils.parse_wheel_filename(path.name)[0], ())
    try:
        with source.open(path) as wheel:
            wheel.validate_record(validate_contents=False)  # the file's hash was already checked
            for (name, _, size), stream, executable in wheel.get_contents():
                path_in_image = _installed_path(name, wheel.data_dir, minor)
                if path_in_image and not any(fnmatchcase(name, pattern) for pattern in patterns):
                    yield _sized(path_in_image, stream, size, executable=executable)
    except (ValueError, OSError) as error:
        raise EngineUnavailable(f"the wheel {path.name} is unreadable: {error}", remedy="build it again") from error


def _sized(name: str, stream: BinaryIO, size: str, *, executable: bool) -> LayerEntry:
    if size.isdecimal():
        return LayerEntry(name, stream, int(size), executable)
    return LayerEntry.of(name, stream.read(), executable=executable)


def _installed_path(name: str, data: str, minor: int) -> str:
    """Empty for excluded files. Source: the binary distribution format (`NAME.data/KEY/…`)."""
    if name.endswith(".dist-info/RECORD"):
        return ""
    if not name.startswith(f"{data}/"):
        return f"{site(minor)}/{name}"
    key, _, rest = name.removeprefix(f"{data}/").partition("/")
    folder = {"purelib": site(minor), "platlib": site(minor), "data": PREFIX}.get(key)
    return f"{folder}/{rest}" if folder else ""


def _own_package(folder: str) -> Iterator[LayerEntry]:
    """The installed Likewise package, with the metadata that states its version and entry points."""
    for path in package_files(PACKAGE):
        data = path.read_bytes()
        yield LayerEntry.of(f"{folder}/{OURS}/{path.relative_to(PACKAGE).as_posix()}", data)
    distribution = importlib.metadata.distribution(OURS)
    for name in ("METADATA", "entry_points.txt"):
        if text := distribution.read_text(name):
            yield LayerEntry.of(f"{folder}/{OURS}-{distribution.version}.dist-info/{name}", text.encode())


# --- byte code -------------------------------------------------------------------------------------------------------


def with_byte_code(entries: Iterable[LayerEntry], minor: int) -> Iterator[LayerEntry]:
    """Add each module's byte code after it, so that a container on a read-only disk does not compile at start.

    Only if this process runs the image's Python version, since byte code is specific to it.
    """
    for entry in entries:
        if not entry.name.endswith(".py") or not _can_compile(minor):
            yield entry
            continue
        data = entry.stream.read()
        yield LayerEntry(entry.name, io.BytesIO(data), len(data), entry.executable)
        if (code := byte_code(data, f"/{entry.name}")) is not None:
            path = PurePosixPath(entry.name)
            yield LayerEntry.of(f"{path.parent}/__pycache__/{path.stem}.{sys.implementation.cache_tag}.pyc", code)


def byte_code(source: bytes, name: str) -> bytes | None:
    """The bytes of an unchecked hash-based `.pyc`, reproducible; None if `source` is not valid Python.

    Source: PEP 552. Marshal version 2 does not mark shared objects; later versions do, and their output varies from
    run to run.
    """
    try:
        code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        return None
    flags = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + marshal.dumps(code, 2)


def _can_compile(minor: int) -> bool:
    return sys.version_info[:2] == (3, minor) and sys.implementation.name == "cpython"
