"""The command `doctor`, which checks this machine."""

from __future__ import annotations

from dataclasses import asdict

import typer

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
        if screen.out.is_terminal:  # a third column would leave too little width
            lines = [(name, f"{found}\n→ {remedy}" if remedy else found) for name, found, remedy in rows]
            screen.table("This machine", ("", "found, and → how to fix it"), lines)
        else:
            screen.table("This machine", ("", "found", "how to fix"), rows)
    if any(f.state == "broken" for f in findings):
        raise typer.Exit(1)
