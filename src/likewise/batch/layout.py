"""Paths of a job's output: their names, what may be replaced, and the renames that publish the result."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from likewise.batch.files import COMPRESSED
from likewise.batch.formats import SUFFIXES
from likewise.batch.job import JobReport
from likewise.core.errors import OutputRefused, WrongUsage

MANIFEST = "_likewise.json"
QUARANTINE = "_quarantine.parquet"
JOB_FILES = re.compile(rf"part-\d{{5,}}\.\w+|{re.escape(MANIFEST)}|{re.escape(QUARANTINE)}")  # in an output folder
FILE_SUFFIXES = (".csv", ".jsonl", ".parquet")

REMEDIES = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some of your quota, or write to another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or write to another disk",
    errno.EACCES: "choose a folder that you have permission to write to",
    errno.EPERM: "choose a folder that you have permission to write to",
    errno.EROFS: "choose a folder that is not mounted read-only",
    errno.ENOENT: "create the folder first: mkdir -p",
    errno.ENOTDIR: "choose a name inside a folder",
    errno.ELOOP: "delete the symbolic link, or choose another OUTPUT",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of an output: `data` is a folder of parts that contains the other two, or (single) a file next to them.

    staging: the working folder of a job, next to `data`. replaced: where the old output is while it is replaced.
    """

    data: Path
    manifest: Path
    quarantine: Path
    single: bool

    @classmethod
    def of(cls, output: Path) -> Layout:
        """The layout for `output`: one file or a folder, by its suffix. WrongUsage for a compressed file."""
        if output.suffix.lower() == COMPRESSED:
            raise WrongUsage(
                f"{output.name}: compressed output is not supported", remedy=f"write -o {output.stem}, then run gzip"
            )
        if output.suffix.lower() in FILE_SUFFIXES:
            folder, name = output.parent, output.name
            return cls(output, folder / f"{name}.likewise.json", folder / f"{name}.quarantine.parquet", single=True)
        return cls(output, output / MANIFEST, output / QUARANTINE, single=False)

    @property
    def staging(self) -> Path:
        return self.data.parent / f".{self.data.name}.likewise-staging"

    @property
    def replaced(self) -> Path:
        return self.staging / "replaced"

    def format(self, source_format: str, requested: str | None) -> str:
        """The output's format; WrongUsage if the file name and the requested format differ."""
        if not self.single:
            return requested or source_format
        by_name = SUFFIXES[self.data.suffix.lower()]
        if requested not in (None, by_name):
            remedy = f"use --format {by_name}, or another file name"
            raise WrongUsage(f"{self.data.name} is {by_name}, not {requested}", remedy=remedy)
        return by_name

    def protect_inputs(self, inputs: Iterable[Path]) -> None:
        """OutputRefused if writing the output would delete or overwrite an input file."""
        paths = [p for p in (self.data, self.manifest, self.quarantine, self.staging) if p.exists()]
        by_path = {path.resolve(): path for path in paths}
        by_inode = {(stat.st_dev, stat.st_ino): path for path in paths for stat in [path.stat()]}
        for source in inputs if paths else ():
            stat = source.stat()
            if path := by_inode.get((stat.st_dev, stat.st_ino)):
                raise OutputRefused(f"{path} is the input itself", remedy="choose another OUTPUT")
            if folder := next((by_path[parent] for parent in source.resolve().parents if parent in by_path), None):
                raise OutputRefused(f"{folder} contains the input {source}", remedy="choose another OUTPUT")

    def check_existing(self, restart: bool) -> None:
        """OutputRefused if the output exists and was not written by a job, or may not be replaced (restart)."""
        data = self.data
        if not data.parent.is_dir():
            raise OutputRefused(f"{data}: the folder {data.parent} does not exist", remedy=f"mkdir -p {data.parent}")
        if data.exists() and data.is_dir() == self.single:
            kind, wanted = ("folder", "file") if data.is_dir() else ("file", "folder")
            raise OutputRefused(f"{data} exists and is a {kind}, not a {wanted}", remedy="choose another OUTPUT")
        if data.is_dir():
            existing = list(data.iterdir())
            foreign = [entry for entry in existing if not JOB_FILES.fullmatch(entry.name)]
        else:
            existing = [path for path in (data, self.manifest, self.quarantine) if path.exists()]
            foreign = []
        if foreign or (existing and not _is_report(self.manifest)):
            problem = (
                "is a folder that contains other files" if data.is_dir() else "exists and was not written by a job"
            )
            raise OutputRefused(f"{data if data.is_dir() else existing[0]} {problem}", remedy="choose another OUTPUT")
        if data.exists() and existing and not restart:
            raise OutputRefused(
                f"{data} already exists",
                remedy="choose another OUTPUT, or replace it with --restart",
            )

    def publish(self, folder: Path, part: str) -> None:
        """Rename the complete files in `folder` to their final names: the manifest first, the data last.

        The manifest marks the other files as output of a job.  part: the name of the part file of a single output.
        """
        data, old = self.data, self.replaced
        remove(old)
        try:
            if data.exists():
                data.rename(old)
            if self.single:
                (folder / MANIFEST).replace(self.manifest)
                (folder / QUARANTINE).replace(self.quarantine)
                (folder / part).replace(data)
            else:
                folder.rename(data)
        except BaseException:
            if old.exists() and not data.exists():
                old.rename(data)
            raise
        sync_folder(data.parent)


def check_name(output: str) -> None:
    """WrongUsage if OUTPUT looks like a file of a format that jobs do not write.

    A name with another suffix is a folder if it ends in a slash, or if a folder with this name exists.
    """
    path, slash = Path(output), output.endswith("/")
    suffix = path.suffix.lower()
    if slash and suffix in FILE_SUFFIXES:
        raise WrongUsage(
            f"{output} ends in a slash like a folder, and in {suffix} like a file", remedy="leave out one of the two"
        )
    if slash or suffix in ("", COMPRESSED, *FILE_SUFFIXES) or path.is_dir():
        return
    near = f"{path.stem}{_nearest(suffix)}"
    raise WrongUsage(
        f"{path.name}: jobs write {', '.join(FILE_SUFFIXES)} files, not {suffix}",
        remedy=f"use -o {path.with_name(near)}, or -o {output}/ for a folder with this name",
    )


def _nearest(suffix: str) -> str:
    """The suffix among FILE_SUFFIXES that most resembles another one."""
    same = [each for each in FILE_SUFFIXES if SUFFIXES[each] == SUFFIXES.get(suffix)]
    return [*same, *get_close_matches(suffix, FILE_SUFFIXES, n=1, cutoff=0.4), FILE_SUFFIXES[0]][0]


@contextmanager
def write_errors(output: Path) -> Iterator[None]:
    """Convert operating system errors while writing `output` to OutputRefused with a remedy."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        remedy = REMEDIES.get(error.errno or 0, "check the disk and its permissions")
        raise OutputRefused(f"{output} cannot be written: {reason}", remedy=remedy) from error


def remove(path: Path) -> None:
    """Delete a file, or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Write the folder's directory entries to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_report(manifest: Path) -> bool:
    """Whether this file is the report of a job."""
    try:
        report = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    required = {field.name for field in fields(JobReport) if field.default is MISSING}
    return isinstance(report, dict) and required <= report.keys()
