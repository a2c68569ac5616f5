"""`verify`: whether a model answers everywhere as it does here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from likewise.batch.options import parse_columns
from likewise.cli.models import Model, TrustFlag
from likewise.cli.options import EngineName, Exact, Precision, asked_precision, described
from likewise.cli.screen import Json, Screen
from likewise.parity import Parity, PlaceParity, VerifyOptions
from likewise.parity import verify as compared

DIFFER = 3  # the exit code
_DEFAULTS = VerifyOptions()


def verify(
    model: Model,
    against: Annotated[
        list[str],
        typer.Option(
            metavar="WHERE",
            help="NAME or NAME@TARGET of a deployment, a URL, local or spark (a batch job), "
            "mlflow (plain mlflow.pyfunc.load_model). Repeatable.",
        ),
    ],
    golden: Annotated[str | None, typer.Option(metavar="FILE", help=described(VerifyOptions, "golden"))] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="INPUT=MODEL", help=described(VerifyOptions, "column"))
    ] = None,
    tolerance: Annotated[
        float, typer.Option(metavar="NUMBER", min=0.0, help=described(VerifyOptions, "tolerance"))
    ] = _DEFAULTS.tolerance,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help=described(VerifyOptions, "token_file"))
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help=described(VerifyOptions, "timeout_s"))
    ] = _DEFAULTS.timeout_s,
    engine: EngineName = None,
    precision: Precision = None,
    exact: Exact = False,
    trust: TrustFlag = False,
    json: Json = False,
) -> None:
    """Ask MODEL here and in other places the same rows, and compare the answers; exit code 3 where any differ."""
    screen = Screen(json)
    options = VerifyOptions(
        golden=golden,
        column=parse_columns(column or ()),
        tolerance=tolerance,
        token_file=token_file,
        timeout_s=timeout,
    )
    asked = asked_precision(precision, exact)
    found = compared(model, against, options=options, engine=engine, precision=asked, trust=trust, report=screen.note)
    if json:
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
