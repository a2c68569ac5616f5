"""`doctor` and `demo`: what this machine can do, and the whole chapter on it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from likewise.cli.demo import Chapter
from likewise.cli.flags import flag
from likewise.cli.screen import Screen
from likewise.doctor import examine


def doctor(screen: Screen) -> None:
    """Show what this machine can do, and the remedy for what is missing. Exit code 1 only where nothing can run."""
    findings = examine()
    if screen.as_json:
        screen.json({"findings": [asdict(f) for f in findings]})
    else:
        marks = {"ok": "✓", "missing": "–", "broken": "✗"}
        rows = [(f"{marks[f.state]} {f.name}", f.found, f.remedy) for f in findings]
        screen.table("This machine", ("", "found", "to have it"), rows)
    if any(f.state == "broken" for f in findings):
        raise typer.Exit(1)


def demo(
    folder: Annotated[Path, flag("--output -o DIR", "Where everything that the demo makes will lie.")] = Path(
        "likewise-demo"
    ),
    quick: Annotated[bool, flag("--quick", "Train two layers instead of six, on a third of the reviews.")] = False,
    rows: Annotated[int, flag("--rows", "How many rows to score.", min=1)] = 2000,
    *,
    screen: Screen,
) -> None:
    """The chapter from end to end: fine-tune, log, bundle, serve, curl, score, and Spark where Java is."""
    start = time.perf_counter()
    chapter = Chapter(folder, quick=quick, rows=rows)
    chapter.run()
    seconds = time.perf_counter() - start
    if screen.as_json:
        screen.json({**chapter.facts, "seconds": seconds, "made": [asdict(m) for m in chapter.made]})
        return
    screen.out.print()
    lines = [(m.what, m.where, m.then, f"{m.seconds:.1f} s") for m in chapter.made]
    screen.table(
        f"Made in {seconds:.0f} s, everything stopped again", ("what", "where", "what to type next", "took"), lines
    )
