"""Which distributions an image needs, pinned to the versions that were tried here, for another platform and Python."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError

from likewise.core.errors import MissingExtra, WrongUsage
from likewise.core.extras import need
from likewise.images.oci import Platform

OURS = "likewise"
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
    parse = need("packaging.requirements", extra="images").Requirement
    canonical = need("packaging.utils", extra="images").canonicalize_name
    environment, left_out = markers(platform, minor), {**unused, **UNUSED}
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(parse(text), "") for text in requirements]
    while waiting:
        requirement, asker = waiting.pop()
        name = canonical(requirement.name)
        fresh = {(name, extra) for extra in ("", *requirement.extras)} - seen
        if name in left_out.get(asker, ()) or not fresh:
            continue
        seen |= fresh
        found[name] = _installed(name, asker)
        for text in found[name].requires or ():
            needed = parse(text)
            if _applies(needed.marker, environment, [extra for _, extra in fresh]):
                waiting.append((needed, name))
    return sorted(f"{name}=={each.version}" for name, each in found.items() if name != OURS)


def _applies(marker: object, environment: Mapping[str, str], extras: Iterable[str]) -> bool:
    return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in extras)  # type: ignore[attr-defined]


def _installed(name: str, asker: str) -> Distribution:
    try:
        found = importlib.metadata.distribution(name)
    except PackageNotFoundError as error:
        why = f", which {asker} needs" if asker else ""
        raise MissingExtra(
            f"{name}{why} is not installed here, so nobody knows which version the model was tried with",
            remedy=f"pip install {name}",
        ) from error
    told = json.loads(found.read_text("direct_url.json") or "{}")
    if name != OURS and told.get("dir_info", {}).get("editable"):
        raise WrongUsage(f"{name} is installed from a working copy", remedy=f"build a wheel of it: pip install {name}")
    return found
