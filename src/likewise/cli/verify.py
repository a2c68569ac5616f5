"""The `verify` command: compares a model's predictions on other backends with those on this machine."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from likewise.batch import Progress
from likewise.cli import completion
from likewise.cli.arguments import Choice, ModelArgument
from likewise.cli.flags import flag
from likewise.cli.progress import JobProgress
from likewise.cli.screen import Screen
from likewise.core.errors import LikewiseError
from likewise.parity import Parity, VerifyOptions
from likewise.parity import verify as compare
from likewise.parity.check import backends_of
from likewise.parity.report import HEADER, check_paths, notes, table, title, write


def verify(
    model: ModelArgument,
    against: Annotated[
        list[str] | None,
        flag(
            "--against WHERE",
            "Backend to compare with: NAME or NAME@TARGET of a deployment, a URL, image:NAME:TAG, ray, a batch job "
            "(local, spark, spark://HOST:PORT), a file or folder that `likewise score` wrote, mlflow (plain "
            "mlflow.pyfunc.load_model) or mlflow-serve (its server). Repeatable.",
            complete=completion.backend,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        flag(
            "--report FILE", "Write the result to FILE.html, with up to 50 differences each, or FILE.json, with 1,000."
        ),
    ] = None,
    junit: Annotated[
        Path | None, flag("--junit FILE", "Write the result as JUnit's XML, a test case per backend.")
    ] = None,
    *,
    options: VerifyOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Compare MODEL's predictions on this machine with those of other backends.

    Exit code 3 if more rows differ than are allowed, 1 if a backend fails or is slow.
    """
    check_paths(report, junit)
    if choice.env:
        backends_of(against or (), options)  # `verify` would report a mistyped one only in the new environment
    try:
        choice.enter(model, screen.note)
        with _Bars() as bars:
            parity = compare(
                model,
                against or (),
                options=options,
                engine=choice.name,
                precision=choice.precision,
                trust=choice.trust,
                allow_versions=choice.allow_versions,
                report=screen.note,
                progress=bars.show,
            )
    except LikewiseError as error:
        write(error, report, junit)  # else a pipeline would read those of an earlier run
        raise
    if screen.as_json:
        screen.json(parity.as_dict())
    else:
        _show(parity, screen)
    write(parity, report, junit)
    if parity.exit_code:
        raise typer.Exit(parity.exit_code)


class _Bars(ExitStack):
    """A progress bar for one backend after the other."""

    _name, _bar = "", JobProgress("")

    def show(self, name: str, progress: Progress) -> None:
        """Display the progress of the backend `name`."""
        if name != self._name:
            self.close()
            self._name, self._bar = name, self.enter_context(JobProgress(name))
        self._bar.show(progress)


def _show(parity: Parity, screen: Screen) -> None:
    """Print the table, then why backends failed and the first differing rows of each."""
    screen.table(title(parity), HEADER, table(parity))
    for line in notes(parity):
        screen.note(line)
    for backend in parity.places:
        if backend.error:
            missing = f"; {backend.missing:,} of {parity.rows:,} rows have no answer" if backend.missing else ""
            screen.note(f"{backend.where}: {backend.error['cause']}{missing}. What to do: {backend.error['remedy']}")
        for each in backend.first:
            screen.note(f"{backend.where}, {each}")
            screen.note(f"    input: {each.given}")
            if each.step is not None:
                screen.note(f"    first step that differs: {each.step}")
        if backend.differ > len(backend.first):
            screen.note(f"{backend.where}: and {backend.differ - len(backend.first):,} more (--report FILE.html)")
