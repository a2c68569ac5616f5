"""A bundle as one file, for places that take a file: `model.tar.gz` on SageMaker, an archive on Spark."""

from __future__ import annotations

import gzip
import shutil
import tarfile
from pathlib import Path

from likewise.bundles.folder import regular_files, safe_relative
from likewise.bundles.open import Bundle, open_bundle
from likewise.core.errors import BundleInvalid, InputNotFound, OutputRefused, UnsafeArchive


def pack(bundle: Bundle, output: Path) -> Path:
    """Write `bundle` as a gzipped tar; the same bundle gives the same bytes whenever and wherever it lies."""
    with (
        output.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, path in regular_files(bundle.path):
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as stream:
                tar.addfile(member, stream)
    return output


def unpack(archive: Path, folder: Path) -> Bundle:
    """Unpack into the new folder `folder` and open what came out; nothing is left there where it is refused.

    Raises InputNotFound, BundleInvalid (not an archive), UnsafeArchive (a link, a device, a path that escapes, a name
    twice), and what `open_bundle` raises.
    """
    if folder.exists():
        raise OutputRefused(f"{folder} exists already", remedy="name a folder that does not exist")
    folder.mkdir(parents=True)
    try:
        _extract(archive, folder)
        return open_bundle(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _extract(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive, mode="r:*") as tar:
            for member in tar:
                _extract_member(tar, member, folder)
    except FileNotFoundError as error:
        raise InputNotFound(f"there is no archive at {archive}", remedy="check the path") from error
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise BundleInvalid(
            f"{archive} cannot be read as a tar archive: {error}", remedy="copy or download the archive again"
        ) from error


def _extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = member.name.removeprefix("./")
    if member.isdir() and name in ("", "."):
        return
    target = folder / safe_relative(name)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    stream = tar.extractfile(member) if member.isreg() else None
    if stream is None or target.exists():
        kind = "stands in it twice" if stream else "is a link or a special file"
        raise UnsafeArchive(
            f"the member {name!r} of the archive {kind}",
            remedy="do not use this archive; ask its maker for one made with `likewise`",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with stream, target.open("xb") as out:
        shutil.copyfileobj(stream, out)
