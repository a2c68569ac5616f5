"""Finds pickles and code in files by content: in archives, compressed files and arrays too. Runs nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mmap
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from likewise.builder.scan import code
from likewise.builder.scan.arrays import Unclear, objects_in_npy
from likewise.builder.scan.findings import PickleFile, Remark
from likewise.builder.scan.judge import MOST_BYTES, MOST_OPERATIONS, Judge
from likewise.builder.scan.machine import Budget, Readable, Walk, walk


class _Source(Protocol):
    """What can be read in pieces."""

    def read(self, size: int, /) -> bytes: ...


PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill", ".cloudpickle", ".npy", ".npz", ".skops")
PROTO = b"\x80"
HEAD = 1 << 16  # bytes that show what a file is; the header of an array must be shorter
CHUNK = 1 << 20
COMPRESSED: dict[bytes, Callable[[IO[bytes]], _Source]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"]\x00\x00": lzma.LZMAFile,
}
UNSUPPORTED = {
    b"\x04\x22\x4d\x18": "lz4 compression",
    b"\x28\xb5\x2f\xfd": "zstd compression",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
}
TAR, USTAR = 257, b"ustar"  # the position of the magic in a tar file
HDF5 = b"\x89HDF\r\n\x1a\n"
NPY = b"\x93NUMPY"
ZIP = b"PK\x03\x04"
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError)


@dataclass(frozen=True)
class Limits:
    """Bounds for one scan.

    unpacked: bytes in all.  members: of all archives.  depth: levels of archives in archives.  operations, names: of
    all pickles.  text: bytes of one JSON or YAML file.
    """

    unpacked: int = 2 << 30
    members: int = 100_000
    depth: int = 5
    operations: int = 10_000_000
    names: int = 20_000
    text: int = 64 << 20


class TooLarge(Exception):
    """A limit is reached."""


class Contents:
    """Reads files one by one and collects what they contain."""

    def __init__(self, judge: Judge, limits: Limits) -> None:
        self.judge, self.limits = judge, limits
        self.pickles: list[PickleFile] = []
        self.code: list[Remark] = []
        self.not_analysed: list[Remark] = []
        self.unpacked, self.members = limits.unpacked, limits.members
        self.budget = Budget(limits.operations, limits.names)

    def file(self, path: Path, name: str) -> None:
        """Read the file at `path`, which is called `name` in the results."""
        with self._reported(name), path.open("rb") as stream:
            self._content(stream, name, 0)

    @contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        """List the file as not analysed if reading it fails for any reason."""
        try:
            yield
        except (TooLarge, Unclear) as error:
            self._unknown(name, str(error))
        except Exception as error:  # noqa: BLE001  the content is hostile, and nothing may be skipped silently
            self._unknown(name, f"{type(error).__name__}: {error}")

    def _unknown(self, name: str, why: str) -> None:
        self.not_analysed.append(Remark(name, why))

    def _content(self, stream: IO[bytes], name: str, depth: int) -> None:
        """Read one file or member. stream: seekable, a real file or BytesIO."""
        if (text := code.by_name(name)) is not None:
            self.code.append(Remark(name, text))
            if name.endswith((".whl", ".egg")):  # all of it is code
                return
        stream.seek(0)
        head = stream.read(HEAD)
        if not head:
            return
        if code.is_settings(name):
            self._settings(stream, name)
        if head.startswith(HDF5):
            self._hdf5(stream, name)
        if (what := next((text for magic, text in UNSUPPORTED.items() if head.startswith(magic)), None)) is not None:
            self._unknown(name, f"{what} is not supported")
        elif depth > self.limits.depth and (_is_container(head) or head.startswith(PROTO)):
            raise TooLarge(f"nested more than {self.limits.depth} levels deep")
        else:
            self._unpack(stream, head, name, depth)

    def _unpack(self, stream: IO[bytes], head: bytes, name: str, depth: int) -> None:
        tar, zipped = head[TAR:].startswith(USTAR), head.startswith(ZIP)
        if not zipped and not head.startswith(NPY):  # tar files, and zip files behind other data, may be pickles too
            with self._reported(name):
                self._pickles(stream, name, 0, depth, "pickle")
        opener = next((each for magic, each in COMPRESSED.items() if head.startswith(magic)), None)
        if opener is not None:
            self._compressed(opener(_from_start(stream)), name, depth)
        elif _is_zlib(head):
            self._compressed(_Zlib(_from_start(stream)), name, depth)
        elif head.startswith(NPY):
            self._npy(stream, head, name, depth)
        elif tar:
            self._tar(stream, name, depth)
        elif zipped or (depth == 0 and zipfile.is_zipfile(_from_start(stream))):
            self._zip(stream, name, depth)

    # --- archives and compressed files ---

    def _compressed(self, source: _Source, name: str, depth: int) -> None:
        with tempfile.TemporaryFile() as target:
            try:
                self._copy(source, target)
            except _BROKEN as error:
                self._unknown(name, f"the compressed data is damaged: {type(error).__name__}: {error}")
            self._content(target, f"{name}!unpacked{_inner_suffix(name)}", depth + 1)

    def _zip(self, stream: IO[bytes], name: str, depth: int) -> None:
        with self.judge.zip_file(_from_start(stream)) as archive:
            for info in archive.infolist():
                inner = f"{name}!{info.filename}"
                if info.is_dir():
                    continue
                self._count_member()
                with self._reported(inner):
                    if info.flag_bits & 1:
                        self._unknown(inner, "it is encrypted")
                    else:
                        with archive.open(info) as member:
                            self._member(member, inner, depth)

    def _tar(self, stream: IO[bytes], name: str, depth: int) -> None:
        with tarfile.open(fileobj=_from_start(stream), mode="r:") as archive:
            for info in archive:
                self._count_member()
                if info.isreg() and (member := archive.extractfile(info)) is not None:
                    with self._reported(f"{name}!{info.name}"):
                        self._member(member, f"{name}!{info.name}", depth)

    def _member(self, member: IO[bytes], name: str, depth: int) -> None:
        head = member.read(HEAD)
        if len(head) == HEAD and self._is_data(head, name):
            return
        with tempfile.TemporaryFile() as target:
            target.write(head)
            self.unpacked -= len(head)
            self._copy(member, target)
            self._content(target, name, depth + 1)

    def _is_data(self, head: bytes, name: str) -> bool:
        """Whether a large member cannot be anything else, so that it need not be unpacked."""
        if _is_container(head) or head.startswith((HDF5, PROTO)) or code.is_settings(name):
            return False
        first = walk(io.BytesIO(head), 0, Budget(HEAD, HEAD))
        damage = first.error
        fails = damage is not None and damage.certain and not damage.ended and not first.uses
        return fails and not _is_named(name) and code.by_name(name) is None

    def _count_member(self) -> None:
        self.members -= 1
        if self.members < 0:
            raise TooLarge(f"more than {self.limits.members} members of archives")

    def _copy(self, source: _Source, target: IO[bytes]) -> None:
        while chunk := source.read(CHUNK):
            self.unpacked -= len(chunk)
            if self.unpacked < 0:
                raise TooLarge(f"more than {self.limits.unpacked / 1e6:,.0f} MB unpacked in all")
            target.write(chunk)

    # --- content ---

    def _settings(self, stream: IO[bytes], name: str) -> None:
        with self._reported(name):
            text = _from_start(stream).read(self.limits.text + 1)
            if len(text) > self.limits.text:
                raise TooLarge(f"a text of more than {self.limits.text / 1e6:,.0f} MB")
            texts, classes = code.settings(name, text)
            self.code += [Remark(name, each) for each in texts]
            if classes:
                self._add(name, "class names", Walk(0, uses=classes, calls=Counter(classes)))

    def _hdf5(self, stream: IO[bytes], name: str) -> None:
        with _mapped(stream) as content:
            found = code.has_keras_lambda(content.getbuffer() if isinstance(content, io.BytesIO) else content)
        if found:
            self.code.append(Remark(name, code.LAMBDA))

    def _npy(self, stream: IO[bytes], head: bytes, name: str, depth: int) -> None:
        start = objects_in_npy(head)
        if start is not None:
            self._pickles(stream, name, start, depth, "array of objects")

    def _pickles(self, stream: IO[bytes], name: str, start: int, depth: int, form: str) -> None:
        """Read the pickles that follow each other from `start`, up to what is not a pickle."""
        with _mapped(stream) as content:
            size = content.seek(0, io.SEEK_END) or content.tell()
            content.seek(0)
            named = start > 0 or (_is_named(name) and not _is_container(content.read(TAR + len(USTAR))))
            while start < size:
                end = self._pickle(content, name, start, named, depth, form)
                if end is None:
                    return
                start, named = end, False

    def _pickle(self, content: Readable, name: str, start: int, named: bool, depth: int, form: str) -> int | None:
        """Read the pickle at `start`; returns its end, or None if there is none or it is damaged."""
        found = walk(content, start, self.budget)
        if found.gaps:
            self._as_plain_pickle(content, found)
        content.seek(start)
        marked = named or content.read(1) == PROTO
        damage = found.error
        if damage is not None:
            listed = named or damage.limit or any(map(self.judge.dangerous, found.uses))
            unclear = not damage.certain and (marked or found.operations > 1)
            if not (listed or unclear or (marked and found.uses)):
                return None
            what = f"not readable as a pickle after byte {found.end}" if found.uses or not named else "not a pickle"
            self._unknown(name, f"{what}: {damage}")
        if found.uses or (marked and damage is None):
            self._add(name, "joblib" if found.gaps else form, found, self._operations(content, found))
        for position, value in found.embedded:
            with self._reported(f"{name}!bytes at {position}"):
                self._content(io.BytesIO(value), f"{name}!bytes at {position}", depth + 1)
        return found.end if damage is None else None

    def _as_plain_pickle(self, content: Readable, found: Walk) -> None:
        """Add dangerous names that Python's unpickler, which does not skip arrays, would find inside them."""
        plain = walk(content, found.start, self.budget, joblib=False)
        for name in plain.uses.keys() - found.uses.keys():
            if self.judge.dangerous(name):
                found.uses[name], found.calls[name] = plain.uses[name], plain.calls[name]

    def _operations(self, content: Readable, found: Walk) -> bytes | None:
        """The pickle without its arrays, for fickling; None if it is too large for it, or damaged."""
        ends = [start for start, _ in found.gaps] + [found.end]
        starts = [found.start] + [end for _, end in found.gaps]
        size = sum(end - start for start, end in zip(starts, ends, strict=True))
        if found.error is not None or size > MOST_BYTES or found.operations > MOST_OPERATIONS:
            return None
        parts = []
        for start, end in zip(starts, ends, strict=True):
            content.seek(start)
            parts.append(content.read(end - start))
        return b"".join(parts)

    def _add(self, name: str, form: str, found: Walk, operations: bytes | None = None) -> None:
        self.pickles.append(PickleFile(name, form, self.judge.imports(found, operations)))


class _Zlib:
    """Reads zlib streams that follow each other, as joblib does."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._inflate = source, zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        while True:
            data = self._inflate.unconsumed_tail or self._inflate.unused_data or self._source.read(CHUNK)
            if self._inflate.eof:
                if not data:
                    return b""
                self._inflate = zlib.decompressobj()
            elif not data:
                raise EOFError("the data ends early")
            if out := self._inflate.decompress(data, size):
                return out


@contextmanager
def _mapped(stream: IO[bytes]) -> Iterator[Readable]:
    """The content with reads that never reserve more memory than there are bytes."""
    if isinstance(stream, io.BytesIO):
        yield stream
        return
    stream.flush()
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _from_start(stream: IO[bytes]) -> IO[bytes]:
    stream.seek(0)
    return stream


def _is_zlib(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0x78 and (head[0] << 8 | head[1]) % 31 == 0 and not head[1] & 0x20


def _is_container(head: bytes) -> bool:
    magics = (*COMPRESSED, *UNSUPPORTED, ZIP, NPY)
    return head.startswith(magics) or _is_zlib(head) or head[TAR:].startswith(USTAR)


def _is_named(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PICKLES


def _inner_suffix(name: str) -> str:
    """The suffix of a compressed file's content: of `model.json` in `model.json.gz`, or of `model.joblib` itself."""
    path = PurePosixPath(name)
    return path.suffix if _is_named(name) else PurePosixPath(path.stem).suffix
