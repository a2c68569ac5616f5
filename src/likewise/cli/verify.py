"""The `verify` command: compares a model's predictions on other backends with those on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from likewise.cli.arguments import Choice, ModelArgument
from likewise.cli.flags import flag
from likewise.cli.screen import Screen
from likewise.parity import BackendParity, Parity, VerifyOptions
from likewise.parity import verify as compare

EXIT_DIFFERENT = 3  # the exit code if any prediction differs


def verify(
    model: ModelArgument,
    against: Annotated[
        list[str],
        flag(
            "--against WHERE",
            "Backend to compare with: NAME or NAME@TARGET of a deployment, a URL, local or spark (a batch job), "
            "or mlflow (plain mlflow.pyfunc.load_model). Repeatable.",
        ),
    ],
    *,
    options: VerifyOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Compare MODEL's predictions on this machine with those of other backends. Exit code 3 if any row differs."""
    choice.enter(model, screen.note)
    parity = compare(
        model,
        against,
        options=options,
        engine=choice.name,
        precision=choice.precision,
        trust=choice.trust,
        allow_versions=choice.allow_versions,
        report=screen.note,
    )
    if screen.as_json:
        screen.json(parity.as_dict())
    else:
        _show(parity, screen)
    if not parity.agrees:
        raise typer.Exit(EXIT_DIFFERENT)


def _show(parity: Parity, screen: Screen) -> None:
    """Print the table, then the first differing rows of each backend."""
    header = ("backend", "verdict", "bundle", "same", "close", "differ", "largest", "refused", "seconds")
    screen.table(
        f"{parity.bundle[:19]}… on this machine with {parity.engine}, {parity.rows} rows of {parity.golden}",
        header,
        [(backend.where, *_facts(backend, parity)) for backend in parity.places],
    )
    for backend in parity.places:
        for each in backend.first:
            screen.note(f"{backend.where}, row {each.row}: {each.there}")
            screen.note(f"{' ' * len(backend.where)}  here: {each.here}")


def _facts(backend: BackendParity, parity: Parity) -> tuple[str, ...]:
    largest = f"{backend.largest:.2g}" if backend.close else ""
    counts = (backend.same, backend.close, backend.differ)
    verdict = "agrees" if backend.agrees else "DIFFERS"
    bundle = "unknown" if backend.bundle is None else f"{backend.bundle[:19]}…"
    if backend.bundle == parity.bundle:
        other = f"same model, {'other' if backend.build else 'unknown'} build"
        bundle = "same" if backend.build == parity.build else other
    return (verdict, bundle, *map(str, counts), largest, str(backend.refused), f"{backend.seconds:.1f}")
