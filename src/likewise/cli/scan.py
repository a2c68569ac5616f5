"""The `scan` command: lists what a model's files would import, call or run, without running any of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Annotated

import typer

from likewise.builder.scan.findings import LEVELS, Level, Scan
from likewise.cli.arguments import ModelArgument
from likewise.cli.flags import flag
from likewise.cli.screen import Screen
from likewise.core.errors import WrongUsage

EXIT_FOUND = 1
FAIL_ON = LEVELS[1:]
MOST = 4  # names or files in one line of the table; --json has all
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
    """List what MODEL's pickles would import or call, and its other code, without running it; needs no trust.

    Names followed by () are called. A scan that finds nothing does not prove that a model is harmless.
    """
    from likewise.builder.scan.model import scan as scan_model  # loads numpy, which other commands do not need

    level = _level(fail_on)
    found = scan_model(model, report=screen.note)
    screen.result(found.as_dict(), "Scan", [*_rows(found), ("result", _summary(found)), ("note", NO_PROOF)])
    if level is not None and found.reaches(level):
        raise typer.Exit(EXIT_FOUND)


def _level(text: str | None) -> Level | None:
    if text is None:
        return None
    for level in FAIL_ON:
        if text == level:
            return level
    raise WrongUsage(f"--fail-on does not know {text!r}", remedy=f"pass one of: {', '.join(FAIL_ON)}")


def _rows(found: Scan) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = [row for level in reversed(FAIL_ON) for row in _names(found, level)]
    rows += [("code", text) for text in _code(found)]
    rows += [("not analysed", f"{each.path}: {each.text}") for each in found.not_analysed]
    usual = Counter(name.partition(".")[0] for name in _distinct(found)["usual"])
    if usual:
        rows.append(("usual", ", ".join(f"{package} ({count})" for package, count in sorted(usual.items()))))
    return rows


def _names(found: Scan, level: Level) -> list[tuple[str, str]]:
    """One line for the names that are in the same files for the same reason."""
    paths: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pickle in found.pickles:
        for each in pickle.imports:
            if each.level == level:
                called = each.calls > 0 and not each.name.endswith(")")
                paths[each.name + "()" * called, each.why].append(pickle.path)
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (name, why), where in paths.items():
        lines[_listed(where), why].append(name)
    return [(level, f"{_listed(names)} in {where}: {why}") for (where, why), names in lines.items()]


def _listed(texts: list[str]) -> str:
    more = f" and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return ", ".join(texts[:MOST]) + more


def _distinct(found: Scan) -> dict[Level, set[str]]:
    names: dict[Level, set[str]] = {level: set() for level in LEVELS}
    for pickle in found.pickles:
        for each in pickle.imports:
            names[each.level].add(each.name)
    return names


def _code(found: Scan) -> list[str]:
    """One line per file, or per folder with several files of the same kind."""
    folders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in found.code:
        folders[each.path.rpartition("/")[0], each.text].append(each.path)
    return [
        f"{paths[0]}: {text}" if len(paths) == 1 else f"{folder or '.'}: {text} in {len(paths)} files"
        for (folder, text), paths in folders.items()
    ]


def _summary(found: Scan) -> str:
    counts = ", ".join(f"{len(names)} {level}" for level, names in reversed(_distinct(found).items()))
    missing = f"; {len(found.not_analysed)} not analysed, so this list is incomplete" if found.not_analysed else ""
    code = f"; code: {len(found.code)}" if found.code else ""
    return f"{found.files} files, {len(found.pickles)} pickles: {counts}{code}{missing}"
