"""Reads `--lock` files: requirements files that identify every package by name, version and hash, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from likewise.core.errors import InputNotFound, WrongUsage
from likewise.core.uris import redacted
from likewise.engine.requirements import plain_requirement, without_comment
from likewise.images.wheel_names import identity
from likewise.shipping.environment import OURS

_HASH = re.compile(r"\s+--hash[= ]sha256:([0-9a-f]{64})(?=\s|$)")


def read_lock(lock: Path, markers: Mapping[str, str]) -> list[str]:
    """The lock's packages as `name==version --hash=sha256:…`; lines that `markers` exclude, and Likewise, are left out.

    Raises InputNotFound, and WrongUsage with the line's number for a pip option, a URL, a path, a package without hash
    or exact version, and a package that is listed twice.
    """
    pins: dict[str, str] = {}
    for number, line in _lines(lock):
        try:
            pin = _pin(line, markers)
        except ValueError as error:
            raise _refused(lock, number, f"{redacted(line)!r} is {error}") from error
        if pin and (name := identity(pin)[0]) != OURS:
            if name in pins:
                raise _refused(lock, number, f"{name} is listed twice")
            pins[name] = pin
    return list(pins.values())


def _pin(line: str, markers: Mapping[str, str]) -> str:
    """Empty if the line's marker excludes it."""
    hashes = _HASH.findall(line)
    requirement = plain_requirement(_HASH.sub("", line).strip())
    exact = re.fullmatch(r"==([^=*,]+)", str(requirement.specifier))
    if not exact or not hashes:
        raise ValueError("a package without an exact version or without a sha256 hash")
    if requirement.marker and not requirement.marker.evaluate({**markers, "extra": ""}):
        return ""
    return " ".join([f"{requirement.name}=={exact[1]}", *(f"--hash=sha256:{each}" for each in hashes)])


def _lines(lock: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not empty, without comments; continued lines are joined, as pip does."""
    try:
        lines = lock.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputNotFound(f"the lock {lock} cannot be read: {reason}", remedy="check the path") from error
    joined, start = "", 0
    for number, line in enumerate(lines, 1):
        start = start if joined else number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            joined += line[:-1] + " "
            continue
        if text := without_comment(joined + line):
            yield start, text
        joined = ""
    if text := without_comment(joined):
        yield start, text


def _refused(lock: Path, number: int, why: str) -> WrongUsage:
    return WrongUsage(
        f"line {number} of the lock {lock}: {why}",
        remedy="write NAME==VERSION --hash=sha256:… for each package, as in an image's /opt/likewise/environment.lock; "
        "--wheels DIR adds a folder of wheels, and pip's own configuration sets its indexes",
    )
