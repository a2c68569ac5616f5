"""A bundle as a single archive file, such as `model.tar.gz` on SageMaker or an archive on Spark."""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
import zlib
from pathlib import Path

from likewise.bundles.folder import add_files, safe_relative
from likewise.bundles.open import Bundle, open_bundle
from likewise.core.errors import BundleInvalid, InputNotFound, OutputRefused, UnsafeArchive


def pack(bundle: Bundle, output: Path) -> Path:
    """Write `bundle` as a gzipped tar; the same bundle always gives the same bytes."""
    with (
        output.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        add_files(tar, bundle.path)
    return output


def unpack(archive: Path, folder: Path) -> Bundle:
    """Unpack `archive` into the new folder `folder` and open the bundle; `folder` is removed if that fails.

    Raises InputNotFound, BundleInvalid (not an archive), UnsafeArchive (a link, a device, a path outside the folder, a
    duplicate name), OutputRefused (`folder` exists, or the disk is full), and what `open_bundle` raises.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputRefused(f"{folder} cannot be created: {error.strerror}", remedy="choose a new folder") from error
    try:
        _extract(archive, folder)
        return open_bundle(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _extract(archive: Path, folder: Path) -> None:
    try:
        raw = archive.open("rb")
    except OSError as error:
        raise InputNotFound(f"{archive} cannot be read: {error.strerror}", remedy="check the path") from error
    try:
        with raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
            for member in tar:
                _extract_member(tar, member, folder)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise _unreadable(archive, error) from error
    except OSError as error:
        if error.errno is None:  # from bz2, which has no exception class
            raise _unreadable(archive, error) from error
        raise OutputRefused(
            f"{archive} cannot be unpacked to {folder}: {error.strerror}", remedy="check the folder, or choose another"
        ) from error


def _extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = member.name.removeprefix("./")
    if member.isdir() and name in ("", "."):
        return
    target = folder / safe_relative(name)
    if any(path.is_file() for path in (target, *target.parents)):
        raise _unsafe(name, "is a duplicate, or is below a file")
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    stream = tar.extractfile(member) if member.isreg() else None
    if stream is None or target.exists():
        raise _unsafe(name, "is a duplicate" if stream else "is a link or a special file")
    if member.size > (free := shutil.disk_usage(folder).free):
        raise OutputRefused(
            f"the archive member {name!r} has {member.size} bytes, but the disk of {folder} has only {free} bytes free",
            remedy="free disk space, or choose a folder on another disk",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with stream, target.open("xb") as out:
        shutil.copyfileobj(stream, out)


def _unsafe(name: str, why: str) -> UnsafeArchive:
    return UnsafeArchive(
        f"the archive member {name!r} {why}",
        remedy="do not use this archive; request one created with `likewise` from its author",
    )


def _unreadable(archive: Path, error: Exception) -> BundleInvalid:
    return BundleInvalid(f"{archive} cannot be read as a tar archive: {error}", remedy="copy or download it again")
