"""Targets by name: built-ins and other packages' come by the same route, an import string or an entry point."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import nearest
from likewise.targets.base import Target

GROUP = "likewise.targets"  # entry points: a scheme, and a class that is made with a target's URI
_URI = re.compile(r"(?P<scheme>[a-z][a-z0-9+-]*)(?P<rest>(:|/).*)?", re.DOTALL)


def names() -> list[str]:
    """The schemes that there are."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def open_target(uri: str) -> Target:
    """The target at `uri`: `local`, `ray-serve`, `ray-serve://host:port`, …; it reaches nothing yet.

    Raises WrongUsage for one that there is not, MissingExtra.
    """
    found = _URI.fullmatch(uri)
    scheme = found["scheme"] if found else uri
    entry = next((entry for entry in entry_points(group=GROUP) if entry.name == scheme), None)
    if entry is None:
        remedy = f"{nearest(scheme, names())}targets: {', '.join(names())}"
        raise WrongUsage(f"there is no target {uri!r}", remedy=remedy)
    target: Target = entry.load()(uri)
    return target
