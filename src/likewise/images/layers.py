"""Reproducible layers: a tar with the same bytes on every machine, gzipped in parallel in fixed-size parts."""

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
from likewise.core.errors import EngineUnavailable, UnsafeArchive
from likewise.images.oci import LAYER, Descriptor, Layer, Platform
from likewise.images.store import Store

PART = 4 << 20  # bytes compressed independently; together one gzip member, since some readers stop after the first
RAW = -15  # zlib's wbits for raw deflate with the largest window
HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # gzip header without time, file name and operating system
WHITEOUT = ".wh."  # runtimes delete what a name with this prefix names, also `..`. Source: the OCI image specification
_ELF_LITTLE = b"\x7fELF\x02\x01"


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """A file, whose seekable `stream` is read when the entry is written, or a symbolic link to `target`.

    name: path relative to the image's root, with forward slashes.
    """

    name: str
    stream: BinaryIO = field(default_factory=io.BytesIO)
    size: int = 0
    executable: bool = False
    target: str = ""

    @classmethod
    def of(cls, name: str, data: bytes, *, executable: bool = False) -> LayerEntry:
        """An entry for a file whose content is in memory."""
        return cls(name, io.BytesIO(data), len(data), executable)


def files_under(root: str, files: Iterable[tuple[str, Path]]) -> Iterator[LayerEntry]:
    """Entries for local files, placed below `root` in the image, in the given order."""
    for name, path in files:
        with path.open("rb") as stream:
            yield LayerEntry(f"{root}/{name}", stream, path.stat().st_size)


def make_layer(store: Store, entries: Iterable[LayerEntry], platform: Platform, *, level: int) -> Layer:
    """Write `entries` as a layer in the given order: owned by root, readable by all, with modification time 0.

    level: gzip level; 0 stores. Raises EngineUnavailable for a file compiled for another CPU, and UnsafeArchive.
    """
    with store.staged() as (stream, commit):
        zipped = GzipParts(stream, level)
        with zipped, tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            folders: set[str] = set()
            for entry in entries:
                _add_parents(tar, entry.name, folders)
                _add(tar, entry, platform)
        commit(zipped.digest)
        return Layer(Descriptor(LAYER, zipped.digest, zipped.size), zipped.diff_id)


def zip_layer(store: Store, tar: BinaryIO, *, level: int) -> Layer:
    """Compress an existing tar into a layer without changing it."""
    with store.staged() as (stream, commit):
        zipped = GzipParts(stream, level)
        with zipped:
            while data := tar.read(PART):
                zipped.write(data)
        commit(zipped.digest)
        return Layer(Descriptor(LAYER, zipped.digest, zipped.size), zipped.diff_id)


def _add_parents(tar: tarfile.TarFile, name: str, folders: set[str]) -> None:
    if any(part.startswith(WHITEOUT) for part in name.split("/")):
        raise UnsafeArchive(f"the file name {name!r} would delete files in an image", remedy="rename the file")
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
            f"{entry.name} is compiled for a CPU other than {platform} (ELF machine {machine})",
            remedy="build the image for the CPU of the compiled files in the model and its wheels: --platform",
        )
    member.size = entry.size
    tar.addfile(member, entry.stream)


def machine_of(head: bytes) -> int | None:
    """The `e_machine` number of an ELF file, read from its first 20 bytes; None for any other file."""
    return int.from_bytes(head[18:20], "little") if head.startswith(_ELF_LITTLE) and len(head) >= 20 else None


class GzipParts(io.RawIOBase):
    """A context manager that writes gzip into `stream`; `digest` and `diff_id` are final after it is closed."""

    def __init__(self, stream: BinaryIO, level: int) -> None:
        self._stream, self._level = stream, level
        self._input_hash, self._output_hash = hashlib.sha256(), hashlib.sha256()
        self._part = bytearray()
        self._pending: deque[Future[bytes]] = deque()
        self._cores = usable_cores()
        self._pool = ThreadPoolExecutor(self._cores)
        self._crc = self._bytes_in = self.size = 0
        self._write_out(HEAD)

    @property
    def digest(self) -> str:
        """The digest of the compressed output."""
        return PREFIX + self._output_hash.hexdigest()

    @property
    def diff_id(self) -> str:
        """The digest of the uncompressed input."""
        return PREFIX + self._input_hash.hexdigest()

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self._input_hash.update(view)
        self._crc = zlib.crc32(view, self._crc)
        self._bytes_in += len(view)
        self._part += view
        while len(self._part) >= PART:
            self._submit(bytes(self._part[:PART]))
            del self._part[:PART]
        return len(view)

    def close(self) -> None:
        if not self.closed:
            self._submit(bytes(self._part))
            while self._pending:
                self._write_oldest()
            self._write_out(
                zlib.compressobj(wbits=RAW).flush() + struct.pack("<II", self._crc, self._bytes_in & 0xFFFFFFFF)
            )
            self._pool.shutdown()
        super().close()

    def _submit(self, part: bytes) -> None:
        self._pending.append(self._pool.submit(_deflate, part, self._level))
        while len(self._pending) > 2 * self._cores:
            self._write_oldest()

    def _write_oldest(self) -> None:
        self._write_out(self._pending.popleft().result())

    def _write_out(self, data: bytes) -> None:
        self._output_hash.update(data)
        self._stream.write(data)
        self.size += len(data)


def _deflate(part: bytes, level: int) -> bytes:
    """Compress a part so that it ends on a byte boundary and refers to no earlier data."""
    zipper = zlib.compressobj(level, zlib.DEFLATED, RAW)
    return zipper.compress(part) + zipper.flush(zlib.Z_FULL_FLUSH)
