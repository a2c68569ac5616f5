"""Bundles in a deployment's folder: there by digest and whole, whatever becomes of where they came from."""

from __future__ import annotations

import shutil
from pathlib import Path

from likewise.bundles.folder import link_or_copy
from likewise.bundles.open import open_bundle
from likewise.core.errors import BundleTampered, LikewiseError, ModelNotFound, OutputRefused
from likewise.engine.rates import cache_home
from likewise.targets.local.deployment_folder import Home

NEW = ".new"


def place(home: Home, digest: str, source: Path) -> Path:
    """The bundle `digest` in `home`, taken from `source` where it is not there whole.

    Raises what `open_bundle` does, BundleTampered where `source` holds another bundle, and OutputRefused.
    """
    target = home.bundle(digest)
    if _is_whole(target, digest):
        return target
    if not source.is_dir():
        raise ModelNotFound(f"there is no bundle at {source} any more", remedy="name the model again")
    staging = home.bundles / NEW
    try:
        home.make()
        home.bundles.mkdir(exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        linked = source.resolve().is_relative_to(cache_home().resolve())
        shutil.copytree(source, staging, symlinks=True, copy_function=link_or_copy if linked else shutil.copyfile)
    except OSError as error:  # shutil.Error is one
        shutil.rmtree(staging, ignore_errors=True)
        home.drop_if_empty()
        raise OutputRefused(f"the bundle cannot be copied to {target}: {error}", remedy="free some space") from error
    _check(staging, digest, source)
    shutil.rmtree(target, ignore_errors=True)  # what was changed after it was put there
    staging.rename(target)
    return target


def keep_only(home: Home, digests: set[str]) -> list[str]:
    """Remove the other bundles; their names."""
    kept = {home.bundle(digest) for digest in digests}
    gone = [path for path in sorted(home.bundles.glob("*")) if path not in kept] if home.bundles.is_dir() else []
    for path in gone:
        shutil.rmtree(path)
    return [path.name for path in gone]


def _is_whole(path: Path, digest: str) -> bool:
    try:
        return path.is_dir() and open_bundle(path).digest == digest
    except LikewiseError:
        return False


def _check(staging: Path, digest: str, source: Path) -> None:
    try:
        if (found := open_bundle(staging).digest) != digest:
            raise BundleTampered(f"{source} holds {found} and not {digest}", remedy="name the model again")
    except LikewiseError:
        shutil.rmtree(staging)
        raise
