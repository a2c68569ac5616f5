"""Targets by name: built-ins and other packages' come by the same route, an import string or an entry point."""

from __future__ import annotations

import importlib
import re
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

from likewise.core.errors import WrongUsage
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
    entry = _entry(found["scheme"]) if found else None
    if entry is None:
        near = get_close_matches(found["scheme"] if found else uri, names(), 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise WrongUsage(f"there is no target {uri!r}", remedy=f"{meant}targets: {', '.join(names())}")
    module, _, attribute = entry.value.partition(":")
    target: Target = getattr(importlib.import_module(module), attribute)(uri)
    return target


def _entry(scheme: str) -> EntryPoint | None:
    return next((entry for entry in entry_points(group=GROUP) if entry.name == scheme), None)
