"""The folder that a build writes: staged next to it, and renamed when the bundle is complete."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from likewise.builder.failures import unwritable
from likewise.bundles.open import Bundle, is_bundle, open_bundle
from likewise.bundles.references import local_path
from likewise.core.errors import OutputRefused
from likewise.core.scratch import scratch_folder


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A temporary folder next to `target`, on the same disk; raises OutputRefused if it cannot be written."""
    with ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stage = stack.enter_context(scratch_folder(f".{target.name}.likewise-new-", target.parent))
        except OSError as error:
            raise unwritable(error) from error
        try:
            yield stage
        except OSError as error:
            if not _is_write_error(error, target.parent):
                raise
            raise unwritable(error) from error


def _is_write_error(error: OSError, folder: Path) -> bool:
    """Whether the disk is full, or `folder` is not writable."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    inside = isinstance(error.filename, str) and Path(error.filename).is_relative_to(folder)
    return inside and error.errno in (errno.EROFS, errno.EACCES)


def refuse_occupied(target: Path, uri: str) -> None:
    """Raise OutputRefused if `target` holds anything but a bundle, or is inside of the model at the path `uri`."""
    if target.exists() and not (target.is_dir() and (is_bundle(target) or not any(target.iterdir()))):
        raise OutputRefused(f"{target} exists and is not a bundle", remedy="choose a folder that does not exist")
    model = local_path(uri)
    if model is not None and target.resolve().is_relative_to(model.resolve()):
        raise OutputRefused(f"{target} is inside the model's own folder", remedy="choose a folder outside it")


def publish(folder: Path, target: Path, digest: str, *, same_build: bool = False) -> Bundle:
    """Rename the complete bundle in `folder` to `target`; another process's there is kept if it has the same digests.

    Raises OutputRefused if `target` is another bundle.
    """
    build = open_bundle(folder).build if same_build else None
    try:
        folder.rename(target)
    except OSError:
        if not target.exists():
            raise
    return _same_or_refused(target, digest, build)  # perhaps another process's, or another user's


def _same_or_refused(target: Path, digest: str, build: str | None = None) -> Bundle:
    """The bundle at `target` if it has these digests; raises OutputRefused otherwise."""
    if is_bundle(target) and (existing := open_bundle(target)).digest == digest and build in (None, existing.build):
        return existing
    raise occupied(target)


def occupied(target: Path) -> OutputRefused:
    """The error for an output that is another bundle."""
    return OutputRefused(f"{target} already contains another bundle", remedy="choose a new folder, or delete this one")
