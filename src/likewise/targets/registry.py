"""Targets by name; built-in and third-party targets are both registered through entry points."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import nearest
from likewise.targets.base import Target

GROUP = "likewise.targets"  # entry points: name is the URI scheme, value a class that is called with the URI
_URI = re.compile(r"(?P<scheme>[a-z][a-z0-9+-]*)(?P<rest>(:|/).*)?", re.DOTALL)


def names() -> list[str]:
    """The registered URI schemes."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def open_target(uri: str) -> Target:
    """The target at `uri`: `local`, `ray-serve`, `ray-serve://host:port`, …; connects to nothing.

    Raises WrongUsage for an unknown target, MissingExtra.
    """
    match = _URI.fullmatch(uri)
    scheme = match["scheme"] if match else uri
    entry = next((entry for entry in entry_points(group=GROUP) if entry.name == scheme), None)
    if entry is None:
        remedy = f"{nearest(scheme, names())}targets: {', '.join(names())}"
        raise WrongUsage(f"there is no target {uri!r}", remedy=remedy)
    target: Target = entry.load()(uri)
    return target
