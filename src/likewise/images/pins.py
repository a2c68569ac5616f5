"""Which distributions an image needs, pinned to the versions that were tried here, for another platform and Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from likewise.core.errors import WrongUsage
from likewise.images.oci import Platform
from likewise.shipping.environment import OURS, closure, installed_from_folder

UNUSED = {OURS: frozenset({"rich", "typer"})}
"""By distribution, what it declares and a service never imports: here the command line's."""


def markers(platform: Platform, minor: int) -> dict[str, str]:
    """What requirements are asked against: CPython 3.`minor` on `platform`. Source: PEP 508."""
    return {
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": platform.machine,
        "platform_release": "",
        "platform_version": "",
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.0",
        "implementation_version": f"3.{minor}.0",
    }


def pins(
    requirements: Iterable[str], platform: Platform, minor: int, *, unused: Mapping[str, frozenset[str]]
) -> list[str]:
    """`name==version`, sorted, of all that `requirements` (`likewise[openvino]`) need, but for us.

    unused: by distribution, what it declares and nothing imports; left out where nothing else needs it.
    Versions are those that are installed here, as the bundle was proved with them.
    Raises MissingExtra (something is not installed here), WrongUsage (it is installed from a working copy).
    """
    found = closure(requirements, unused={**unused, **UNUSED}, markers=markers(platform, minor))
    for name, each in found.items():
        if name != OURS and installed_from_folder(each):
            raise WrongUsage(
                f"{name} is installed from a working copy", remedy=f"build a wheel of it: pip install {name}"
            )
    return sorted(f"{name}=={each.version}" for name, each in found.items() if name != OURS)
