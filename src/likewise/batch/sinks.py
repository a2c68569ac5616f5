"""Where the rows go: staged beside the final name, and there only when whole."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

from likewise.batch.formats import SUFFIXES, Chunk, Source, Writer, load
from likewise.batch.job import Report
from likewise.batch.quarantine import Quarantine
from likewise.core.errors import LikewiseError, OutputRefused, WrongUsage
from likewise.core.results import Result
from likewise.core.signature import Signature

PART_BYTES = 128 << 20  # a part file of a folder ends at the first chunk past this
MANIFEST = "_likewise.json"
QUARANTINE = "_quarantine.parquet"
OURS = re.compile(rf"part-\d{{5,}}\.\w+|{re.escape(MANIFEST)}|{re.escape(QUARANTINE)}")  # in a folder that we wrote
FILE_SUFFIXES = (".csv", ".jsonl", ".parquet")

REMEDIES = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some of your quota, or write to another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or write to another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that is not mounted read-only",
    errno.ENOENT: "make the folder first: mkdir -p",
    errno.ENOTDIR: "choose a name inside a folder",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Final names: `data` is a folder of parts with the two others in it, or one file with the two beside it."""

    data: Path
    manifest: Path
    quarantine: Path
    single: bool

    @classmethod
    def of(cls, output: Path) -> Layout:
        """By the suffix of `output`."""
        if output.suffix.lower() in FILE_SUFFIXES:
            beside = output.parent
            name = output.name
            return cls(output, beside / f"{name}.likewise.json", beside / f"{name}.quarantine.parquet", single=True)
        return cls(output, output / MANIFEST, output / QUARANTINE, single=False)


class Output:
    """The output of one job. A context: what is not committed when it ends is removed."""

    def __init__(
        self, output: Path, source: Source, signature: Signature, format_name: str | None, restart: bool
    ) -> None:
        self.layout = Layout.of(output)
        self._format = _format(self.layout, source, format_name)
        self._staging = output.parent / f".{output.name}.likewise-staging"
        self._replaced = output.parent / f".{output.name}.likewise-replaced"
        self._refuse_loss(source.path)
        self._refuse_existing(restart)
        self._writer: Writer = load(self._format).open_writer(source, signature.outputs)
        self._parts = 0
        self._part: BinaryIO | None = None

    def __enter__(self) -> Output:
        with refused(self.layout.data), ExitStack() as undo:
            undo.callback(self._discard)  # first of all: Ctrl-C may come between any two lines
            self._staging.mkdir(exist_ok=True)
            self._lock = os.open(self._staging, os.O_RDONLY)
            undo.callback(os.close, self._lock)
            self._claim()
            self._side = (self._staging / QUARANTINE).open("wb")
            undo.callback(_close, self._side)
            self._quarantine = Quarantine(self._side)
            undo.callback(_close, self._quarantine)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self._part:
            _close(self._writer)
            _close(self._part)
        self._undo.close()

    def fit(self, predictions: Sequence[object]) -> list[Result]:
        """Each prediction as the output's format holds it, or why it cannot."""
        return self._writer.fit(predictions)

    def write(
        self, chunk: Chunk, kept: Sequence[int], predictions: Sequence[object], errors: Mapping[int, LikewiseError]
    ) -> None:
        """The rows `kept` of a chunk with their fitted predictions, and those that have an error instead."""
        with refused(self.layout.data):
            if kept:
                self._begin_part()
                self._writer.write(chunk, kept, predictions)
                if not self.layout.single and self._part and self._part.tell() >= PART_BYTES:
                    self._end_part()
            self._quarantine.write(chunk, errors)

    def commit(self, report: Mapping[str, object]) -> None:
        """Everything under its final name, on the disk."""
        with refused(self.layout.data):
            if not self._parts:
                self._begin_part()
            self._end_part()
            self._quarantine.close()
            _finish(self._side)
            with (self._staging / MANIFEST).open("wb") as stream:
                stream.write(json.dumps(report, indent=2).encode() + b"\n")
                _finish(stream)
            self._publish()

    def _claim(self) -> None:
        """One job an output; what a killed one left behind is cleared away."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputRefused(
                f"another job is writing {self.layout.data}", remedy="wait for it, or choose another OUTPUT"
            ) from None
        for entry in self._staging.iterdir():
            _remove(entry)

    def _discard(self) -> None:
        """Remove the staging folder, unless it has become the output, or is another job's."""
        with suppress(OSError):
            lock = os.open(self._staging, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self._staging)
            finally:
                os.close(lock)

    def _refuse_loss(self, source: Path) -> None:
        """OutputRefused where writing would take the input away."""
        layout = self.layout
        for path in (layout.data, layout.manifest, layout.quarantine, self._staging, self._replaced):
            if path.exists() and path.samefile(source):
                raise OutputRefused(f"{path} is the input itself", remedy="choose another OUTPUT")
            if path.resolve() in source.resolve().parents:
                raise OutputRefused(f"{path} holds the input {source}", remedy="choose another OUTPUT")

    def _refuse_existing(self, restart: bool) -> None:
        data, layout = self.layout.data, self.layout
        if not data.parent.is_dir():
            raise OutputRefused(f"{data}: there is no folder {data.parent}", remedy=f"mkdir -p {data.parent}")
        if data.exists() and data.is_dir() == layout.single:
            raise OutputRefused(f"{data} exists and is not of the kind to be written", remedy="choose another OUTPUT")
        if data.is_dir():
            there = list(data.iterdir())
            foreign = [entry for entry in there if not OURS.fullmatch(entry.name)]
        else:
            there = [path for path in (data, layout.manifest, layout.quarantine) if path.exists()]
            foreign = []
        if foreign or (there and not _is_report(layout.manifest)):
            what = "is a folder with other things in it" if data.is_dir() else "exists, and no job wrote it"
            raise OutputRefused(f"{data if data.is_dir() else there[0]} {what}", remedy="choose another OUTPUT")
        if data.exists() and there and not restart:
            raise OutputRefused(f"{data} exists", remedy="choose another OUTPUT, or --restart to replace it")

    def _begin_part(self) -> None:
        if self._part is None:
            self._part = (self._staging / f"part-{self._parts:05d}.{self._format}").open("wb")
            self._parts += 1
            self._writer.begin(self._part)

    def _end_part(self) -> None:
        if self._part is not None:
            self._writer.close()
            _finish(self._part)
            self._part = None

    def _publish(self) -> None:
        """Renames only. The manifest tells whose the others are and comes first, the data last."""
        data, aside = self.layout.data, self._replaced
        _remove(aside)
        if data.exists():
            data.rename(aside)
        try:
            if self.layout.single:
                (self._staging / MANIFEST).replace(self.layout.manifest)
                (self._staging / QUARANTINE).replace(self.layout.quarantine)
                (self._staging / f"part-00000.{self._format}").replace(data)
            else:
                os.fsync(self._lock)
                self._staging.rename(data)
        except BaseException:
            if aside.exists() and not data.exists():
                aside.rename(data)
            raise
        _sync_folder(data.parent)
        _remove(aside)


@contextmanager
def refused(output: Path) -> Iterator[None]:
    """What the system says against writing, as OutputRefused with its remedy."""
    try:
        yield
    except OSError as error:
        what = os.strerror(error.errno) if error.errno else str(error)
        remedy = REMEDIES.get(error.errno or 0, "check the disk and its permissions")
        raise OutputRefused(f"{output} cannot be written: {what}; nothing was left behind", remedy=remedy) from error


def _is_report(manifest: Path) -> bool:
    """Whether a job wrote this file."""
    try:
        report = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(report, dict) and {field.name for field in fields(Report)} <= report.keys()


def _format(layout: Layout, source: Source, asked: str | None) -> str:
    if not layout.single:
        return asked or source.format
    by_name = SUFFIXES[layout.data.suffix.lower()]
    if asked not in (None, by_name):
        raise WrongUsage(f"{layout.data.name} is {by_name}, not {asked}", remedy=f"--format {by_name}, or another name")
    return by_name


def _finish(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    stream.close()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _close(file: BinaryIO | Quarantine | Writer) -> None:
    """Close what nobody will read; a file of Arrow's left open would write when it is finalised."""
    with suppress(OSError, ValueError):
        file.close()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
