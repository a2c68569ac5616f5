"""The wheels in a bundle: they add packages that no index has, and replace none that Likewise runs on."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from likewise.bundles.open import Bundle
from likewise.core.digests import PREFIX
from likewise.core.errors import BundleInvalid
from likewise.images.wheel_names import Wheel, identity_of

FOLDER = "wheels/"


def bundled_wheels(bundle: Bundle, reserved: Container[str]) -> dict[Wheel, Path]:
    """The bundle's wheels with the hashes in its manifest, and their paths.

    reserved: canonical names of the distributions that Likewise and the engine need.
    Raises BundleInvalid for a file that is not a wheel, two wheels of one distribution, and one of `reserved`.
    """
    wheels: dict[str, tuple[Wheel, Path]] = {}
    for path, entry in sorted(bundle.manifest.files.items()):
        if not path.startswith(FOLDER):
            continue
        wheel = Wheel(path.removeprefix(FOLDER), entry.sha256.removeprefix(PREFIX))
        if (identity := identity_of(wheel.file)) is None:
            raise _refused(bundle, path, "is not a valid name of a wheel")
        if identity[0] in reserved:
            raise _refused(bundle, path, f"would replace {identity[0]}, which Likewise or the engine needs")
        if identity[0] in wheels:
            raise _refused(bundle, path, f"is a second wheel of {identity[0]}")
        wheels[identity[0]] = wheel, bundle.path / path
    return dict(wheels.values())


def _refused(bundle: Bundle, path: str, why: str) -> BundleInvalid:
    return BundleInvalid(
        f"{path!r} in the bundle {bundle.path} {why}",
        remedy="bundle the model again: likewise bundle MODEL -o DIR; pass a private package's wheel with --wheels DIR",
    )
