"""`verify`: whether a model answers everywhere as it does here."""

from __future__ import annotations

from typing import Annotated

import typer

from likewise.cli.arguments import Choice, ModelArgument
from likewise.cli.flags import flag
from likewise.cli.screen import Screen
from likewise.parity import Parity, PlaceParity, VerifyOptions
from likewise.parity import verify as compared

DIFFER = 3  # the exit code


def verify(
    model: ModelArgument,
    against: Annotated[
        list[str],
        flag(
            "--against WHERE",
            "NAME or NAME@TARGET of a deployment, a URL, local or spark (a batch job), "
            "mlflow (plain mlflow.pyfunc.load_model). Repeatable.",
        ),
    ],
    *,
    options: VerifyOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Ask MODEL here and in other places the same rows, and compare the answers; exit code 3 where any differ."""
    found = compared(
        model,
        against,
        options=options,
        engine=choice.name,
        precision=choice.precision,
        trust=choice.trust,
        report=screen.note,
    )
    if screen.as_json:
        screen.json(found.as_dict())
    else:
        _show(found, screen)
    if not found.agrees:
        raise typer.Exit(DIFFER)


def _show(found: Parity, screen: Screen) -> None:
    """The table, then a few rows of each place that are answered in another way."""
    header = ("place", "verdict", "bundle", "same", "close", "differ", "largest", "refused", "seconds")
    screen.table(
        f"{found.bundle[:19]}… here by {found.engine}, {found.rows} rows of {found.golden}",
        header,
        [(place.where, *_facts(place, found.bundle)) for place in found.places],
    )
    for place in found.places:
        for each in place.first:
            screen.note(f"{place.where}, row {each.row}: {each.there}")
            screen.note(f"{' ' * len(place.where)}  here: {each.here}")


def _facts(place: PlaceParity, here: str) -> tuple[str, ...]:
    largest = f"{place.largest:.2g}" if place.close else ""
    counts = (place.same, place.close, place.differ)
    verdict = "agrees" if place.agrees else "DIFFERS"
    bundle = "the same" if place.bundle == here else (place.bundle or "not told")[:19]
    return (verdict, bundle, *map(str, counts), largest, str(place.refused), f"{place.seconds:.1f}")
