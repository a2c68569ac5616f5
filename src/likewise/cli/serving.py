"""`serve` and `score`: a model that answers."""

from __future__ import annotations

from typing import Annotated

from likewise import api
from likewise.batch import JobReport, ScoreOptions
from likewise.cli.arguments import Choice, ModelArgument
from likewise.cli.flags import argument, flag
from likewise.cli.progress import JobProgress
from likewise.cli.screen import Screen
from likewise.core.errors import WrongUsage
from likewise.server import ServerOptions


def serve(
    model: Annotated[str | None, argument("MODEL", "As for `bundle`.")] = None,
    model_uri: Annotated[str | None, flag("--model-uri -m MODEL", "The same, as `mlflow models serve` has it.")] = None,
    *,
    options: ServerOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Answer over HTTP, in the foreground, until Ctrl-C or SIGTERM; what is in flight is answered first."""
    if (model is None) == (model_uri is None):
        raise WrongUsage("serve takes one MODEL", remedy="likewise serve MODEL, or likewise serve -m MODEL")
    _serve(_found(str(model or model_uri), choice, screen), options, screen)


def _found(model: str, choice: Choice, screen: Screen) -> api.Bundle:
    """The bundle, with that choice of engine, and a line where it could be a better one."""
    found = choice.find(model, screen.note)
    if (line := api.advice(found)) is not None:
        screen.note(line)
    return found


def _serve(found: api.Bundle, options: ServerOptions, screen: Screen) -> None:
    from likewise.server.pages import curl_line
    from likewise.serving import served_model

    def listening(url: str) -> None:
        screen.note(f"{found.digest[:19]}… at {url} (Ctrl-C stops it); loading the model")

    def ready(url: str) -> None:
        if screen.as_json:
            screen.json({"url": url, "bundle": found.digest})
        else:
            screen.note(f"ready; the page is {url}/ and this asks it: {curl_line(served_model(found), url)}")

    api.serve(found, options=options, listening=listening, ready=ready)


def score(
    model: ModelArgument,
    source: Annotated[
        str, argument("INPUT", "CSV, JSON lines or Parquet: a file, a folder, a glob, or the like at s3://.")
    ],
    output: Annotated[str, flag("--output -o OUTPUT", "A folder, or a .csv, .jsonl or .parquet file.")],
    *,
    options: ScoreOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Score files: their rows in order with their predictions, bad rows aside with the reason.

    A job that was stopped goes on where it was when the same command is run again.
    """
    found = _found(model, choice, screen)
    with JobProgress(source.rstrip("/").rpartition("/")[2] or source) as bar:
        report = api.score(found, source, output, options=options, progress=bar.show)
    screen.result({"output": output, **report.as_dict()}, "Scored", _facts(report, output, found.manifest.row_wise))


def _facts(report: JobReport, output: str, row_wise: bool) -> list[tuple[str, str]]:
    rate = report.rows_in / report.seconds if report.seconds else 0.0
    windowed = [("note", "rows were scored in windows, though the model does not declare them independent")]
    return [
        ("output", output),
        ("rows", f"{report.rows_in:,} in, {report.rows_ok:,} answered, {report.rows_quarantined:,} quarantined"),
        ("repeated", f"{report.duplicates:,} rows were answered by an equal row's answer"),
        ("engine", report.engine),
        ("time", f"{report.seconds:.1f} s, {rate:,.1f} rows/s, {report.tokens:,} tokens"),
        ("bundle", report.bundle),
        *([] if row_wise else windowed),
    ]
