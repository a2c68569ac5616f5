"""Installs bundles in a deployment's folder, by build digest, so that they do not depend on their source."""

from __future__ import annotations

import shutil
from pathlib import Path

from likewise.bundles.cache import cache_home
from likewise.bundles.folder import link_or_copy
from likewise.bundles.open import open_bundle
from likewise.core.errors import BundleTampered, LikewiseError, ModelNotFound, OutputRefused
from likewise.core.private_files import private_folder
from likewise.targets.local.deployment_folder import DeploymentFolder

NEW = ".new"  # a bundle that is being copied


def install(folder: DeploymentFolder, digest: str, source: Path) -> Path:
    """The bundle `digest` in `folder`; copied or linked from `source` unless it is already there and unmodified.

    Raises what `open_bundle` does, BundleTampered if `source` has another digest, ModelNotFound, and OutputRefused.
    """
    target = folder.bundle(digest)
    if _is_intact(target, digest):
        return target
    if not source.is_dir():
        raise ModelNotFound(
            f"the bundle at {source} no longer exists", remedy="run the command again, with the model's URI"
        )
    staging = folder.bundles / NEW
    try:
        private_folder(folder.create().bundles)
        shutil.rmtree(staging, ignore_errors=True)
        linked = source.resolve().is_relative_to(cache_home().resolve())
        shutil.copytree(source, staging, symlinks=True, copy_function=link_or_copy if linked else shutil.copyfile)
    except OSError as error:  # shutil.Error is one
        shutil.rmtree(staging, ignore_errors=True)
        folder.drop_if_empty()
        raise OutputRefused(
            f"cannot copy the bundle to {target}: {error}", remedy="check the disk space and permissions"
        ) from error
    _check(staging, digest, source)
    shutil.rmtree(target, ignore_errors=True)  # a copy that was modified after its installation
    staging.rename(target)
    return target


def keep_only(folder: DeploymentFolder, digests: set[str]) -> list[str]:
    """Remove all bundles except these; returns the names of the removed ones."""
    kept = {folder.bundle(digest) for digest in digests}
    paths = sorted(folder.bundles.glob("*")) if folder.bundles.is_dir() else []
    removed = [path for path in paths if path not in kept]
    for path in removed:
        shutil.rmtree(path)
    return [path.name for path in removed]


def _is_intact(path: Path, digest: str) -> bool:
    try:
        return path.is_dir() and open_bundle(path).has_digest(digest)
    except LikewiseError:
        return False


def _check(staging: Path, digest: str, source: Path) -> None:
    try:
        if not (bundle := open_bundle(staging)).has_digest(digest):
            raise BundleTampered(
                f"the bundle in {source} is {bundle.build}, expected {digest}",
                remedy="run the command again, with the model's URI",
            )
    except LikewiseError:
        shutil.rmtree(staging)
        raise
