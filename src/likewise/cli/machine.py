"""Commands to check this machine and to run the example: `doctor` and `demo`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from likewise.cli.demo import Demo
from likewise.cli.flags import flag
from likewise.cli.screen import Screen
from likewise.doctor import examine


def doctor(screen: Screen) -> None:
    """Show what this machine supports and how to install what is missing. Exit code 1 only if Likewise cannot run."""
    findings = examine()
    if screen.as_json:
        screen.json({"findings": [asdict(f) for f in findings]})
    else:
        marks = {"ok": "✓", "missing": "–", "broken": "✗"}
        rows = [(f"{marks[f.state]} {f.name}", f.found, f.remedy) for f in findings]
        screen.table("This machine", ("", "found", "how to fix"), rows)
    if any(f.state == "broken" for f in findings):
        raise typer.Exit(1)


def demo(
    folder: Annotated[Path, flag("--output -o DIR", "Folder for all that the demo creates.")] = Path("likewise-demo"),
    quick: Annotated[bool, flag("--quick", "Train two layers instead of six, on a third of the reviews.")] = False,
    rows: Annotated[int, flag("--rows", "Number of rows to score.", min=1)] = 2000,
    *,
    screen: Screen,
) -> None:
    """Run the example from end to end: fine-tune, log, bundle, serve, curl, score; with Java, also Spark."""
    start = time.perf_counter()
    example = Demo(folder, quick=quick, rows=rows)
    example.run()
    seconds = time.perf_counter() - start
    if screen.as_json:
        screen.json({**example.facts, "seconds": seconds, "made": [asdict(artifact) for artifact in example.artifacts]})
        return
    screen.out.print()
    lines = [(each.what, each.where, each.then, f"{each.seconds:.1f} s") for each in example.artifacts]
    screen.table(f"Completed in {seconds:.0f} s; nothing is left running", ("what", "where", "next", "time"), lines)
