"""What wheels' file names say: distribution, version, and the platforms and Pythons that they suit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from likewise.core.extras import need
from likewise.images.oci import Platform

OLDEST = 17  # minor version of glibc 2 for manylinux2014, the oldest accepted tag


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel by file name and sha256 (64 hex digits)."""

    file: str
    sha256: str

    @property
    def pin(self) -> str:
        """The wheel as a line of a requirements file with hashes."""
        name, version = need("packaging.utils", extra="images").parse_wheel_filename(self.file)[:2]
        return f"{name}=={version} --hash=sha256:{self.sha256}"


def lock_text(wheels: Iterable[Wheel]) -> str:
    """The wheels as a requirements file with hashes, the format that `--lock` reads."""
    return "".join(f"{wheel.pin}\n" for wheel in wheels)


def identity(pin: str) -> tuple[str, str]:
    """The canonical name and version of `name==version`, which hashes may follow."""
    utils = need("packaging.utils", extra="images")
    name, _, version = pin.split()[0].partition("==")
    return utils.canonicalize_name(name), utils.canonicalize_version(version)


def identity_of(file: str) -> tuple[str, str] | None:
    """The canonical name and version of a wheel; None if its file name is not valid."""
    utils = need("packaging.utils", extra="images")
    try:
        name, version = utils.parse_wheel_filename(file)[:2]
    except (utils.InvalidWheelFilename, ValueError):
        return None
    return name, utils.canonicalize_version(version)


def platform_tags(platform: Platform, glibc: tuple[int, int]) -> list[str]:
    """Platform tags of wheels that run on `glibc`, newest first. Source: PEP 600, PEP 599."""
    newest = glibc[1] if glibc[0] == 2 else OLDEST
    return [f"manylinux_2_{n}_{platform.machine}" for n in range(newest, OLDEST - 1, -1)] + [
        f"manylinux2014_{platform.machine}",
        f"linux_{platform.machine}",
    ]


def rank(file: str, minor: int, platforms: list[str]) -> tuple[Any, ...]:
    """A key that sorts suitable wheels of one version as pip does, the best first; empty if `file` is not suitable.

    minor: of CPython 3.  platforms: as `platform_tags` returns them; with manylinux2014, pip takes the older ones too.
    """
    tags = need("packaging.tags", extra="images")
    build, own = need("packaging.utils", extra="images").parse_wheel_filename(file)[2:]
    if "manylinux2014_x86_64" in platforms:
        platforms = [*platforms, "manylinux2010_x86_64", "manylinux1_x86_64"]
    interpreter = f"cp3{minor}"
    supported = [
        *tags.cpython_tags((3, minor), [interpreter], platforms),
        *tags.compatible_tags((3, minor), interpreter, platforms),
    ]
    place = next((number for number, tag in enumerate(supported) if tag in own), None)
    return () if place is None else (place, *(-build[0], build[1])) if build else (place, 0, "")
