"""The `scan` command: lists what a model's files would import or run, without running any of it."""

from __future__ import annotations

from typing import Annotated

import typer

from likewise.builder.scan.findings import LEVELS, Scan
from likewise.cli.arguments import ModelArgument
from likewise.cli.flags import flag
from likewise.cli.screen import Screen
from likewise.core.errors import WrongUsage

EXIT_FOUND = 1
FAIL_ON = LEVELS[1:]
NO_PROOF = "a scan that finds nothing proves nothing: harmless names can be combined to run any code"


def scan(
    model: ModelArgument,
    fail_on: Annotated[
        str | None,
        flag(
            "--fail-on LEVEL",
            "Exit with code 1 if something `dangerous` was found; with `unusual`, also for unusual names and code. "
            "Both also if a file could not be analysed.",
        ),
    ] = None,
    *,
    screen: Screen,
) -> None:
    """List what MODEL's pickles would import, and its other code, without running any of it; needs no trust.

    A scan that finds nothing does not prove that a model is harmless.
    """
    from likewise.builder.scan.model import scan as scan_model  # loads numpy, which other commands do not need

    if fail_on is not None and fail_on not in FAIL_ON:
        raise WrongUsage(f"--fail-on does not know {fail_on!r}", remedy=f"pass one of: {', '.join(FAIL_ON)}")
    found = scan_model(model, report=screen.note)
    screen.result(found.as_dict(), "Scan", _rows(found))
    if fail_on is not None and found.reaches(fail_on):
        raise typer.Exit(EXIT_FOUND)


def _rows(found: Scan) -> list[tuple[str, str]]:
    names = sorted({(LEVELS.index(each.level), each.path, each.why, each.name) for each in found.imports if each.why})
    usual = sorted({each.name.partition(".")[0] for each in found.imports if each.level == "usual"})
    missing = f"; {len(found.not_analysed)} not analysed, so this list is incomplete" if found.not_analysed else ""
    return [
        *((LEVELS[level], f"{name} in {path}: {why}") for level, path, why, name in reversed(names)),
        *(("code", f"{each.path}: {each.text}") for each in found.code),
        *(("not analysed", f"{each.path}: {each.text}") for each in found.not_analysed),
        ("usual", f"names from {', '.join(usual)}" if usual else "none"),
        ("result", f"{found.level}; {found.files} files{missing}"),
        ("note", NO_PROOF),
    ]
