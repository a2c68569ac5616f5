"""A layer: a tar that is the same whenever and wherever it is made, gzipped in parts on every core."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from likewise.bundles.folder import safe_relative
from likewise.core.cores import usable_cores
from likewise.core.digests import PREFIX
from likewise.core.errors import EngineUnavailable
from likewise.images.oci import LAYER, Descriptor, Layer, Platform
from likewise.images.store import Store

PART = 4 << 20  # bytes; each is compressed by itself, and all of them are one member, as some readers know only one
RAW = -15  # zlib's number for its largest window without a frame
HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # of a gzip member of no time, no name and no system
_ELF_LITTLE = b"\x7fELF\x02\x01"


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """A file, whose `stream` can seek and is read when its turn comes, or a link to `target`.

    name: relative, with slashes.
    """

    name: str
    stream: BinaryIO = field(default_factory=io.BytesIO)
    size: int = 0
    executable: bool = False
    target: str = ""

    @classmethod
    def of(cls, name: str, data: bytes, *, executable: bool = False) -> LayerEntry:
        """A small file."""
        return cls(name, io.BytesIO(data), len(data), executable)


def files_under(root: str, files: Iterable[tuple[str, Path]]) -> Iterator[LayerEntry]:
    """Files of this disk, below `root` in the image, in the order that they come in."""
    for name, path in files:
        with path.open("rb") as stream:
            yield LayerEntry(f"{root}/{name}", stream, path.stat().st_size)


def make_layer(store: Store, entries: Iterable[LayerEntry], platform: Platform, *, level: int) -> Layer:
    """Write `entries`, in their order, as a layer: owned by root, readable by all, of no time.

    level: of gzip; 0 stores. Raises EngineUnavailable for a compiled file of another CPU, and UnsafeArchive.
    """
    with store.staged() as (stream, keep):
        zipped = GzipParts(stream, level)
        with zipped, tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            folders: set[str] = set()
            for entry in entries:
                _add_parents(tar, entry.name, folders)
                _add(tar, entry, platform)
        keep(zipped.digest)
        return Layer(Descriptor(LAYER, zipped.digest, zipped.size), zipped.diff_id)


def zip_layer(store: Store, tar: BinaryIO, *, level: int) -> Layer:
    """A tar that was made elsewhere, as it stands."""
    with store.staged() as (stream, keep):
        zipped = GzipParts(stream, level)
        with zipped:
            while data := tar.read(PART):
                zipped.write(data)
        keep(zipped.digest)
        return Layer(Descriptor(LAYER, zipped.digest, zipped.size), zipped.diff_id)


def _add_parents(tar: tarfile.TarFile, name: str, folders: set[str]) -> None:
    for parent in reversed(PurePosixPath(safe_relative(name)).parents[:-1]):
        if str(parent) not in folders:
            folders.add(str(parent))
            member = tarfile.TarInfo(str(parent))
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)


def _add(tar: tarfile.TarFile, entry: LayerEntry, platform: Platform) -> None:
    member = tarfile.TarInfo(entry.name)
    member.mode = 0o755 if entry.executable else 0o644
    if entry.target:
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.target, 0o777
        tar.addfile(member)
        return
    machine = machine_of(entry.stream.read(20))
    entry.stream.seek(0)
    if machine not in (None, platform.elf):
        raise EngineUnavailable(
            f"{entry.name} is compiled for another CPU than {platform} (ELF machine {machine})",
            remedy="the model or a wheel of it brings compiled files: build the image for the CPU that they are for",
        )
    member.size = entry.size
    tar.addfile(member, entry.stream)


def machine_of(head: bytes) -> int | None:
    """The CPU of a compiled file by its first 20 bytes; None for any other file."""
    return int.from_bytes(head[18:20], "little") if head.startswith(_ELF_LITTLE) and len(head) >= 20 else None


class GzipParts(io.RawIOBase):
    """Writes gzip into `stream`; both digests are there when it has been closed. A context."""

    def __init__(self, stream: BinaryIO, level: int) -> None:
        self._stream, self._level = stream, level
        self._inner, self._outer = hashlib.sha256(), hashlib.sha256()
        self._part = bytearray()
        self._waiting: deque[Future[bytes]] = deque()
        self._cores = usable_cores()
        self._pool = ThreadPoolExecutor(self._cores)
        self._crc = self._read = self.size = 0
        self._out(HEAD)

    @property
    def digest(self) -> str:
        """Of what was written out."""
        return PREFIX + self._outer.hexdigest()

    @property
    def diff_id(self) -> str:
        """Of what was written in."""
        return PREFIX + self._inner.hexdigest()

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self._inner.update(view)
        self._crc = zlib.crc32(view, self._crc)
        self._read += len(view)
        self._part += view
        while len(self._part) >= PART:
            self._send(bytes(self._part[:PART]))
            del self._part[:PART]
        return len(view)

    def close(self) -> None:
        if not self.closed:
            self._send(bytes(self._part))
            while self._waiting:
                self._take()
            self._out(zlib.compressobj(wbits=RAW).flush() + struct.pack("<II", self._crc, self._read & 0xFFFFFFFF))
            self._pool.shutdown()
        super().close()

    def _send(self, part: bytes) -> None:
        self._waiting.append(self._pool.submit(_deflated, part, self._level))
        while len(self._waiting) > 2 * self._cores:
            self._take()

    def _take(self) -> None:
        self._out(self._waiting.popleft().result())

    def _out(self, data: bytes) -> None:
        self._outer.update(data)
        self._stream.write(data)
        self.size += len(data)


def _deflated(part: bytes, level: int) -> bytes:
    """A part that ends on a whole byte and needs nothing that stood before it."""
    zipper = zlib.compressobj(level, zlib.DEFLATED, RAW)
    return zipper.compress(part) + zipper.flush(zlib.Z_FULL_FLUSH)
