"""Commands that show deployments on any target: `list`, `status`, `logs`, `history`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Annotated

import typer

from likewise import deployments
from likewise.cli import completion
from likewise.cli.flags import argument, flag
from likewise.cli.screen import Screen, visible
from likewise.core.errors import WrongUsage
from likewise.core.stdout import stdout
from likewise.targets.facts import facts_of
from likewise.targets.history import DEPLOYED, Revision
from likewise.targets.listing import Listed, next_steps

Name = Annotated[str, argument("NAME", "Name of the deployment.", complete=completion.deployment)]
To = Annotated[
    str | None,
    flag("--to -t TARGET", "Target; needed only if several targets have this name.", complete=completion.target),
]
LISTED: dict[str, Callable[[Listed], str]] = {
    "name": lambda each: each.name,
    "state": lambda each: each.state,
    "age": lambda each: _age(each.age_s),
    "url": lambda each: each.url,
    "model": lambda each: each.model.source if each.model is not None else "",
    "engine": lambda each: each.engine,
    "target": lambda each: each.target,
    "costs": lambda each: str(each.receipt.shown().get("costs", "")) if each.receipt is not None else "",
    "bundle": lambda each: each.model.digest[:19] if each.model is not None else "",
}
"""The columns of `list`, in the order in which they get the terminal's width."""
UNITS = (("d", 86400.0, 2.0), ("h", 3600.0, 1.0), ("min", 60.0, 1.0))  # of an age; used from so many of them


def list_(
    to: Annotated[
        str | None,
        flag(
            "--to -t TARGET",
            "List only this target, including deployments that were made from other machines.",
            complete=completion.target,
        ),
    ] = None,
    no_state: Annotated[bool, flag("--no-state", "Do not query the targets; only show what is recorded here.")] = False,
    *,
    screen: Screen,
) -> None:
    """List the deployments made from this machine, on all targets, their states, and the resources that incur costs.

    All targets are queried at the same time; a deployment is `unreachable` if its target does not respond in time.
    On a terminal, columns are shortened or left out if they do not fit; --json has everything.
    """
    listed = deployments.listed(to, states=not no_state)
    if screen.as_json:
        screen.json({"deployments": [each.as_dict() for each in listed]})
        return
    if not listed:
        screen.note("no deployments; create one with: likewise deploy MODEL --to TARGET --name NAME")
        return
    screen.table(
        "Deployments", list(LISTED), [[cell(each) for cell in LISTED.values()] for each in listed], whole=len(LISTED)
    )
    for each in listed:
        if each.remedy:
            screen.note(f"{each.name} on {each.target}: {each.state}: {each.remedy}")


def status(name: Name, to: To = None, *, screen: Screen) -> None:
    """Show the current state of a deployment, as its target reports it. Exit code 1 if it is failing or gone.

    Requests, response times (p50, p99) and memory are those that the target knows.
    """
    receipt, current = deployments.status(name, to=to)
    screen.result({"receipt": receipt.as_dict(), "status": current.as_dict()}, name, facts_of(receipt, current))
    if current.state == "failing":
        screen.note(next_steps(name, receipt))
    if current.state in ("failing", "gone"):
        raise typer.Exit(1)


def logs(
    name: Name,
    to: To = None,
    follow: Annotated[
        bool, flag("--follow -f", "Print new lines as they are written, also after an update; ends with Ctrl-C.")
    ] = False,
    lines: Annotated[int, flag("--lines -n N", "Number of lines to print first.", min=0)] = 100,
    *,
    screen: Screen,
) -> None:
    """Show the last lines of a deployment's log."""
    if follow and screen.as_json:
        raise WrongUsage("--follow has no end, and --json prints one document", remedy="remove one of them")
    log = deployments.logs(name, to=to, lines=lines, follow=follow)
    if screen.as_json:
        screen.json({"lines": list(log)})
        return
    with suppress(KeyboardInterrupt) if follow else nullcontext():
        for line in log:
            stdout().write((visible(line) if screen.out.is_terminal else line) + "\n")
            stdout().flush()


def history(name: Name, to: To = None, *, screen: Screen) -> None:
    """Show the revisions of a deployment, the newest last: when, who, what changed, and whether it was rolled back.

    The option --revision of `likewise update` returns to one of them.
    """
    revisions = deployments.history(name, to=to)
    if screen.as_json:
        screen.json({"revisions": [each.as_dict() for each in revisions]})
        return
    current = max((each.number for each in revisions if each.outcome == DEPLOYED), default=0)
    rows, causes = [], []
    for each in revisions:
        outcome = each.outcome + ", current" * (each.number == current)
        at = each.at.removesuffix("+00:00").replace("T", " ")
        rows.append((str(each.number), at, each.user, outcome, _change(each)))
        causes.append(each.cause.partition("\n")[0])
    header = ("number", "time (UTC)", "user", "outcome", "change")
    if not screen.out.is_terminal:
        screen.table("", (*header, "cause"), [(*row, cause) for row, cause in zip(rows, causes, strict=True)])
        return
    screen.table(f"Revisions of {name}", header, rows)
    for row, cause in zip(rows, causes, strict=True):
        if cause:
            screen.note(f"revision {row[0]} was rolled back: {cause}")


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    unit, size = next(((unit, size) for unit, size, least in UNITS if seconds >= least * size), ("s", 1.0))
    return f"{int(seconds // size)} {unit}"


def _change(revision: Revision) -> str:
    """What the revision changed, and which earlier one it repeats."""
    repeated = "" if revision.returns_to is None else f" (as revision {revision.returns_to})"
    return ", ".join(f"{name} {_shown(each)}" for name, each in _changes(revision)) + repeated


def _shown(value: object) -> str:
    """A value of an option; of a mapping only its names, because variables of an environment may be secrets."""
    if isinstance(value, Mapping):
        return f"({', '.join(value)})"
    return value if isinstance(value, str) else json.dumps(value)


def _changes(revision: Revision) -> list[tuple[str, object]]:
    model = revision.model.source or revision.model.digest[:19]
    changes = {"model": model} if revision.before is None else revision.changes
    return [(name, model if name == "model" else each) for name, each in changes.items()]
