"""Requirements that are only a name, extras, versions and a marker: none can state where a package comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.core.uris import redacted

_COMMENT = re.compile(r"(^|\s+)#.*$")
_FILES = (
    ".whl",
    ".zip",
    ".tar",
    ".tgz",
    ".tbz",
    ".txz",
    ".tlz",
    ".gz",
    ".bz2",
    ".xz",
    ".lz",
    ".lzma",
)  # pip's archives


def plain_requirements(lines: Iterable[str]) -> list[str]:
    """The logged requirements of a model, without comments and blank lines.

    Raises WrongUsage for pip options, URLs and paths: with them, the model would choose where its packages come from.
    """
    requirements = []
    for line in filter(None, map(without_comment, lines)):
        try:
            requirements.append(str(plain_requirement(line)))
        except ValueError as error:
            raise WrongUsage(
                f"the model was logged with the requirement {redacted(line)!r}, which is {error}",
                remedy="log the model again with NAME==VERSION instead, and install that version here; if no package "
                "index has it, pass the folder of its wheel to image builds with --wheels DIR",
            ) from error
    return requirements


def without_comment(line: str) -> str:
    """A line of a requirements file without its comment, as pip reads it."""
    return _COMMENT.sub("", line).strip()


def plain_requirement(line: str) -> Any:
    """Parse `line` into a `packaging.requirements.Requirement`.

    Raises ValueError, whose message states what the line is instead: a pip option, a URL, a path.
    """
    parser = need("packaging.requirements", extra="mlflow")
    if line.startswith("-"):
        raise ValueError("a pip option")
    try:
        requirement = parser.Requirement(line)
    except parser.InvalidRequirement:
        requirement = None
    if "://" in line or (requirement and requirement.url):
        raise ValueError("a URL")
    if requirement and not requirement.name.lower().endswith(_FILES):
        return requirement
    if requirement or "/" in line or "\\" in line or line.startswith("."):
        raise ValueError("the path of a file or folder")
    raise ValueError("not only a name, extras, versions and a marker")
