"""The environment layer: files of the locked wheels, Likewise's package, byte code, and the programs of the image."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import marshal
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from likewise.core.digests import sha256_bytes
from likewise.core.errors import BundleInvalid, EngineUnavailable
from likewise.core.extras import need
from likewise.core.unpack import package_digest, package_files
from likewise.images.base import Base
from likewise.images.layers import LayerEntry, make_layer
from likewise.images.store import Part
from likewise.images.wheel_names import Wheel, lock_text
from likewise.images.wheels import Wheels
from likewise.shipping.environment import OURS, PACKAGE

LEVEL = 6  # gzip level; the layer is built once and sent to every registry
HOME = "opt/likewise"
PREFIX = f"{HOME}/python"
BIN = f"{HOME}/bin"
ENTRYPOINT = ("python", "-m", "likewise.container")
SERVE = "serve"
FORMAT = 3  # version of this layer's format; increase it when the same wheels give other files


def site(minor: int) -> str:
    """The image's site-packages folder."""
    return f"{PREFIX}/lib/python3.{minor}/site-packages"


def environment_layer(
    base: Base,
    wheels: Wheels,
    locked: Sequence[Wheel],
    *,
    left_out: Mapping[str, Sequence[str]],
    bundled: Collection[Wheel] = (),
) -> Part:
    """The environment layer, shared by all models that need the same wheels.

    left_out: by distribution, patterns of files to exclude.  bundled: the wheels that come from the bundle.
    Raises EngineUnavailable (a wheel is unreadable or for another CPU), UnsafeArchive, BundleInvalid (a wheel from the
    bundle contains a file of another package).
    """
    own = [wheel for wheel in locked if wheel in bundled]
    metadata = _own_metadata()
    inputs: dict[str, object] = {
        "format": FORMAT,
        "wheels": sha256_bytes(lock_text(locked).encode()),
        "bundled": [wheel.pin for wheel in own],
        "ours": package_digest(PACKAGE),
        "metadata": {name: sha256_bytes(data) for name, data in metadata.items()},
        "platform": str(wheels.platform),
        "python": [base.python, base.minor],
        "left_out": sorted(left_out.items()),
        "byte_code": sha256_bytes(importlib.util.MAGIC_NUMBER) if _can_compile(base.minor) else "",
    }

    def entries() -> Iterator[LayerEntry]:
        yield from _own_files(base, locked, metadata)
        for wheel in locked:
            if wheel not in own:
                yield from _wheel_files(wheels.checked(wheel), base.minor, left_out)

    added = (entry for wheel in own for entry in _wheel_files(wheels.checked(wheel), base.minor, left_out))
    unique = unique_entries(with_byte_code(entries(), base.minor), with_byte_code(added, base.minor))
    return wheels.store.layer(inputs, lambda: make_layer(wheels.store, unique, wheels.platform, level=LEVEL))


def _own_files(base: Base, locked: Sequence[Wheel], metadata: Mapping[str, bytes]) -> Iterator[LayerEntry]:
    """The programs, the lock and the installed Likewise package; first, so that no wheel can replace them."""
    yield LayerEntry(f"{BIN}/python", target=base.python)
    command = " ".join((*ENTRYPOINT, SERVE))
    yield LayerEntry.of(f"{BIN}/{SERVE}", f"#!/bin/sh\nexec {command}\n".encode(), executable=True)
    yield LayerEntry.of(f"{HOME}/environment.lock", lock_text(locked).encode())
    for path in package_files(PACKAGE):
        data = path.read_bytes()
        yield LayerEntry.of(f"{site(base.minor)}/{OURS}/{path.relative_to(PACKAGE).as_posix()}", data)
    for name, data in metadata.items():
        yield LayerEntry.of(f"{site(base.minor)}/{name}", data)


def _own_metadata() -> dict[str, bytes]:
    """The files that state Likewise's version and entry points, by their path in site-packages."""
    distribution = importlib.metadata.distribution(OURS)
    files = {name: distribution.read_text(name) for name in ("METADATA", "entry_points.txt")}
    folder = f"{OURS}-{distribution.version}.dist-info"
    return {f"{folder}/{name}": text.encode() for name, text in files.items() if text}


def unique_entries(entries: Iterable[LayerEntry], bundled: Iterable[LayerEntry] = ()) -> Iterator[LayerEntry]:
    """The first entry of each name: distributions may share files, and Docker rejects duplicates in a layer.

    bundled: from the wheels of a bundle; BundleInvalid if one is a module or file of another package or of Python.
    """
    names: set[str] = set()
    for entry in entries:
        if entry.name not in names:
            names.add(entry.name)
            yield entry
    taken = names | {_module(name) for name in names}
    for entry in bundled:
        if entry.name in taken or _module(entry.name) in taken or _is_standard(entry.name):
            raise BundleInvalid(
                f"a wheel in the bundle contains {entry.name}, which replaces a part of Python or of another package",
                remedy="log the model again with a package that does not contain this file, and bundle it again",
            )
        if entry.name not in names:
            names.add(entry.name)
            yield entry


def _module(name: str) -> str:
    """The path of the module that a file defines: `a/six` for `a/six.py`, `a/six.abi3.so` and `a/six/__init__.py`."""
    path = PurePosixPath(name)
    if path.suffix not in (".py", ".pyc", ".so"):
        return name
    stem = path.name.partition(".")[0]
    return str(path.parent if stem == "__init__" else path.parent / stem)


def _is_standard(name: str) -> bool:
    """Whether a file in site-packages hides a module of the standard library."""
    top = PurePosixPath(_module(name.partition("/site-packages/")[2])).parts[:1]
    return bool(top) and top[0] in sys.stdlib_module_names


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
    """Empty for excluded files: Python would run a wheel's byte code instead of its source.

    Source: the binary distribution format (`NAME.data/KEY/…`).
    """
    if name.endswith(".dist-info/RECORD") or "__pycache__" in name.split("/"):
        return ""
    if not name.startswith(f"{data}/"):
        return f"{site(minor)}/{name}"
    key, _, rest = name.removeprefix(f"{data}/").partition("/")
    folder = {"purelib": site(minor), "platlib": site(minor), "data": PREFIX}.get(key)
    return f"{folder}/{rest}" if folder else ""


# --- byte code -------------------------------------------------------------------------------------------------------


def with_byte_code(entries: Iterable[LayerEntry], minor: int) -> Iterator[LayerEntry]:
    """Add each module's byte code after it, so that a container on a read-only disk does not compile at start.

    Only if this process runs the image's Python version, since byte code is specific to it, and not for the tests that
    libraries install: they are a third of NumPy's and pandas' code, and nothing imports them.
    """
    for entry in entries:
        path = PurePosixPath(entry.name)
        if path.suffix != ".py" or "tests" in path.parts or not _can_compile(minor):
            yield entry
            continue
        data = entry.stream.read()
        yield LayerEntry(entry.name, io.BytesIO(data), len(data), entry.executable)
        if (code := byte_code(data, f"/{entry.name}")) is not None:
            yield LayerEntry.of(f"{path.parent}/__pycache__/{path.stem}.{sys.implementation.cache_tag}.pyc", code)


def byte_code(source: bytes, name: str) -> bytes | None:
    """The bytes of an unchecked hash-based `.pyc`, reproducible; None if `source` is not valid Python.

    Source: PEP 552. Marshal version 2 does not mark shared objects; later versions do, and their output varies from
    run to run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where warnings are errors, an invalid escape would not compile
            code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError):
        return None
    flags = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + marshal.dumps(code, 2)


def _can_compile(minor: int) -> bool:
    return sys.version_info[:2] == (3, minor) and sys.implementation.name == "cpython"
