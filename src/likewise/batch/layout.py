"""Where an output goes: its names, what may be replaced there, and the renames that put it there."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from likewise.batch.files import COMPRESSED
from likewise.batch.formats import SUFFIXES
from likewise.batch.job import JobReport
from likewise.core.errors import OutputRefused, WrongUsage

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
    """Final names: `data` is a folder of parts with the two others in it, or one file with the two beside it.

    staging: the folder beside it where a job works. replaced: where an old output waits until the new one is there.
    """

    data: Path
    manifest: Path
    quarantine: Path
    single: bool

    @classmethod
    def of(cls, output: Path) -> Layout:
        """By the suffix of `output`; WrongUsage for one that is compressed."""
        if output.suffix.lower() == COMPRESSED:
            raise WrongUsage(f"{output.name}: output is not compressed", remedy=f"-o {output.stem}, then gzip")
        if output.suffix.lower() in FILE_SUFFIXES:
            beside = output.parent
            name = output.name
            return cls(output, beside / f"{name}.likewise.json", beside / f"{name}.quarantine.parquet", single=True)
        return cls(output, output / MANIFEST, output / QUARANTINE, single=False)

    @property
    def staging(self) -> Path:
        return self.data.parent / f".{self.data.name}.likewise-staging"

    @property
    def replaced(self) -> Path:
        return self.data.parent / f".{self.data.name}.likewise-replaced"

    def format(self, source_format: str, asked: str | None) -> str:
        """The output's format; WrongUsage where the name says another than was asked for."""
        if not self.single:
            return asked or source_format
        by_name = SUFFIXES[self.data.suffix.lower()]
        if asked not in (None, by_name):
            remedy = f"--format {by_name}, or another name"
            raise WrongUsage(f"{self.data.name} is {by_name}, not {asked}", remedy=remedy)
        return by_name

    def refuse_loss(self, inputs: Iterable[Path]) -> None:
        """OutputRefused where writing would take an input away."""
        places = [p for p in (self.data, self.manifest, self.quarantine, self.staging, self.replaced) if p.exists()]
        inside = {path.resolve(): path for path in places}
        same = {(stat.st_dev, stat.st_ino): path for path in places for stat in [path.stat()]}
        for source in inputs if places else ():
            stat = source.stat()
            if path := same.get((stat.st_dev, stat.st_ino)):
                raise OutputRefused(f"{path} is the input itself", remedy="choose another OUTPUT")
            if held := next((inside[parent] for parent in source.resolve().parents if parent in inside), None):
                raise OutputRefused(f"{held} holds the input {source}", remedy="choose another OUTPUT")

    def refuse_existing(self, restart: bool) -> None:
        """OutputRefused where something is there that is not ours, or is and shall not be replaced."""
        data = self.data
        if not data.parent.is_dir():
            raise OutputRefused(f"{data}: there is no folder {data.parent}", remedy=f"mkdir -p {data.parent}")
        if data.exists() and data.is_dir() == self.single:
            raise OutputRefused(f"{data} exists and is not of the kind to be written", remedy="choose another OUTPUT")
        if data.is_dir():
            there = list(data.iterdir())
            foreign = [entry for entry in there if not OURS.fullmatch(entry.name)]
        else:
            there = [path for path in (data, self.manifest, self.quarantine) if path.exists()]
            foreign = []
        if foreign or (there and not _is_report(self.manifest)):
            what = "is a folder with other things in it" if data.is_dir() else "exists, and no job wrote it"
            raise OutputRefused(f"{data if data.is_dir() else there[0]} {what}", remedy="choose another OUTPUT")
        if data.exists() and there and not restart:
            raise OutputRefused(f"{data} exists", remedy="choose another OUTPUT, or --restart to replace it")

    def publish(self, folder: Path, part: str) -> None:
        """Put what lies whole in `folder` under its final names, by renames: the manifest first, the data last.

        The manifest tells whose the others are.  part: the name of the one part file.
        """
        data, aside = self.data, self.replaced
        remove(aside)
        if data.exists():
            data.rename(aside)
        try:
            if self.single:
                (folder / MANIFEST).replace(self.manifest)
                (folder / QUARANTINE).replace(self.quarantine)
                (folder / part).replace(data)
            else:
                folder.rename(data)
        except BaseException:
            if aside.exists() and not data.exists():
                aside.rename(data)
            raise
        sync_folder(data.parent)
        remove(aside)


@contextmanager
def refused(output: Path) -> Iterator[None]:
    """What the system says against writing, as OutputRefused with its remedy."""
    try:
        yield
    except OSError as error:
        what = os.strerror(error.errno) if error.errno else str(error)
        remedy = REMEDIES.get(error.errno or 0, "check the disk and its permissions")
        raise OutputRefused(f"{output} cannot be written: {what}", remedy=remedy) from error


def remove(path: Path) -> None:
    """A file or a folder with all that is in it, where it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """The folder's names, on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_report(manifest: Path) -> bool:
    """Whether a job wrote this file."""
    try:
        report = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(report, dict) and {field.name for field in fields(JobReport)} <= report.keys()
