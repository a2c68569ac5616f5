"""The locked environment as a layer: wheels unpacked, our own package, byte code, and `python` and `serve`."""

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
from likewise.images.base import Base
from likewise.images.layers import LayerEntry, make_layer
from likewise.images.store import Part
from likewise.images.wheels import Wheel, Wheels, lock_text
from likewise.shipping.environment import OURS, PACKAGE
from likewise.shipping.unpack import package_digest, package_files

LEVEL = 6  # of gzip: made once, sent to every registry
HOME = "opt/likewise"
PREFIX = f"{HOME}/python"
BIN = f"{HOME}/bin"
ENTRYPOINT = ("python", "-m", "likewise.container")
SERVE = "serve"
FORMAT = 2  # of this layer: another number where the same wheels give other files


def site(minor: int) -> str:
    """Where packages lie in the image."""
    return f"{PREFIX}/lib/python3.{minor}/site-packages"


def environment_layer(
    base: Base, wheels: Wheels, locked: Sequence[Wheel], *, left_out: Mapping[str, Sequence[str]]
) -> Part:
    """The layer; the same for every model that needs the same wheels.

    left_out: by distribution, patterns of files that are not needed.
    Raises EngineUnavailable (a wheel that cannot be read, or is for another CPU), UnsafeArchive.
    """
    what: dict[str, object] = {
        "format": FORMAT,
        "wheels": sha256_bytes(lock_text(locked).encode()),
        "ours": package_digest(PACKAGE),
        "version": importlib.metadata.version(OURS),
        "platform": str(wheels.platform),
        "python": [base.python, base.minor],
        "left_out": sorted(left_out.items()),
        "byte_code": sha256_bytes(importlib.util.MAGIC_NUMBER) if _compiles(base.minor) else "",
    }
    entries = once(_entries(base, wheels, locked, left_out))
    return wheels.store.layer(what, lambda: make_layer(wheels.store, entries, wheels.platform, level=LEVEL))


def _entries(
    base: Base, wheels: Wheels, locked: Sequence[Wheel], left_out: Mapping[str, Sequence[str]]
) -> Iterator[LayerEntry]:
    yield LayerEntry(f"{BIN}/python", target=base.python)
    words = " ".join((*ENTRYPOINT, SERVE))
    yield LayerEntry.of(f"{BIN}/{SERVE}", f"#!/bin/sh\nexec {words}\n".encode(), executable=True)
    yield LayerEntry.of(f"{HOME}/environment.lock", lock_text(locked).encode())
    for wheel in locked:
        yield from with_byte_code(_unpacked(wheels.checked(wheel), base.minor, left_out), base.minor)
    yield from with_byte_code(_ours(site(base.minor)), base.minor)


def once(entries: Iterable[LayerEntry]) -> Iterator[LayerEntry]:
    """The first of each name: distributions may hold the same files, and Docker refuses a layer that has one twice."""
    seen: set[str] = set()
    for entry in entries:
        if entry.name not in seen:
            seen.add(entry.name)
            yield entry


def _unpacked(path: Path, minor: int, left_out: Mapping[str, Sequence[str]]) -> Iterator[LayerEntry]:
    """The files of a wheel where an installer would put them, but for scripts, headers and the list of files."""
    source = need("installer.sources", extra="images").WheelFile
    utils = need("packaging.utils", extra="images")
    patterns = left_out.get(utils.parse_wheel_filename(path.name)[0], ())
    try:
        with source.open(path) as wheel:
            wheel.validate_record(validate_contents=False)  # the hash of the whole file is that of the lock
            for (name, _, size), stream, executable in wheel.get_contents():
                place = _place(name, wheel.data_dir, minor)
                if place and not any(fnmatchcase(name, pattern) for pattern in patterns):
                    yield _sized(place, stream, size, executable=executable)
    except (ValueError, OSError) as error:
        raise EngineUnavailable(f"the wheel {path.name} cannot be read: {error}", remedy="build it anew") from error


def _sized(name: str, stream: BinaryIO, size: str, *, executable: bool) -> LayerEntry:
    if size.isdecimal():
        return LayerEntry(name, stream, int(size), executable)
    return LayerEntry.of(name, stream.read(), executable=executable)


def _place(name: str, data: str, minor: int) -> str:
    """Source: the binary distribution format (`NAME.data/KEY/…`); empty for what does not travel."""
    if name.endswith(".dist-info/RECORD"):
        return ""
    if not name.startswith(f"{data}/"):
        return f"{site(minor)}/{name}"
    key, _, rest = name.removeprefix(f"{data}/").partition("/")
    place = {"purelib": site(minor), "platlib": site(minor), "data": PREFIX}.get(key)
    return f"{place}/{rest}" if place else ""


def _ours(where: str) -> Iterator[LayerEntry]:
    """Our own package as it is here, and what tells its version."""
    for path in package_files(PACKAGE):
        data = path.read_bytes()
        yield LayerEntry.of(f"{where}/{OURS}/{path.relative_to(PACKAGE).as_posix()}", data)
    held = importlib.metadata.distribution(OURS)
    for name in ("METADATA", "entry_points.txt"):
        if text := held.read_text(name):
            yield LayerEntry.of(f"{where}/{OURS}-{held.version}.dist-info/{name}", text.encode())


# --- byte code -------------------------------------------------------------------------------------------------------


def with_byte_code(entries: Iterable[LayerEntry], minor: int) -> Iterator[LayerEntry]:
    """Each module followed by its byte code, so that a start on a read-only disk compiles nothing.

    Only where this is the Python that the image has: no other can write its byte code.
    """
    for entry in entries:
        if not entry.name.endswith(".py") or not _compiles(minor):
            yield entry
            continue
        data = entry.stream.read()
        yield LayerEntry(entry.name, io.BytesIO(data), len(data), entry.executable)
        if (code := byte_code(data, f"/{entry.name}")) is not None:
            path = PurePosixPath(entry.name)
            yield LayerEntry.of(f"{path.parent}/__pycache__/{path.stem}.{sys.implementation.cache_tag}.pyc", code)


def byte_code(source: bytes, name: str) -> bytes | None:
    """A `.pyc` that is used unchecked, the same for the same source; None for what is no Python.

    Source: PEP 552. Version 2 of the format of marshalled code shares nothing between objects: newer ones write what
    this process happens to hold twice, and so differ from run to run.
    """
    try:
        code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        return None
    flags = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + marshal.dumps(code, 2)


def _compiles(minor: int) -> bool:
    return sys.version_info[:2] == (3, minor) and sys.implementation.name == "cpython"
