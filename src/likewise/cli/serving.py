"""Commands that run a model on this machine: `serve` and `score`."""

from __future__ import annotations

from typing import Annotated

from likewise import api
from likewise.batch import JobReport, ScoreOptions
from likewise.batch.listing import list_files
from likewise.batch.runners import output_path
from likewise.batch.s3 import SCHEME
from likewise.cli import end_in_time
from likewise.cli.arguments import Choice, ModelArgument
from likewise.cli.flags import argument, flag
from likewise.cli.progress import JobProgress
from likewise.cli.screen import Screen
from likewise.core.errors import WrongUsage
from likewise.server import ServerOptions

STOPPED_S = 10.0  # in which a job has to end after a signal, with what it has scored


def serve(
    model: Annotated[str | None, argument("MODEL", "Path of a bundle, or MLflow model URI, as for `bundle`.")] = None,
    model_uri: Annotated[
        str | None,
        flag("--model-uri -m MODEL", "Same as the argument MODEL, for compatibility with `mlflow models serve`."),
    ] = None,
    *,
    options: ServerOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Serve MODEL over HTTP in the foreground until Ctrl-C or SIGTERM. Requests in flight are completed first."""
    end_in_time(options.end_s)
    if options.log_format == "json":
        screen.log_as_json()
    if (model is None) == (model_uri is None):
        raise WrongUsage("serve takes exactly one MODEL", remedy="run likewise serve MODEL, or likewise serve -m MODEL")
    _serve(_open(str(model or model_uri), choice, screen), options, screen)


def _open(model: str, choice: Choice, screen: Screen) -> api.Bundle:
    """The model's bundle with the chosen engine; prints which that is, and a hint if a faster one may be available."""
    bundle = choice.find(model, screen.note)
    screen.note(api.selected(bundle))
    if (hint := api.advice(bundle)) is not None:
        screen.note(hint)
    return bundle


def _serve(bundle: api.Bundle, options: ServerOptions, screen: Screen) -> None:
    from likewise.server.pages import curl_line
    from likewise.serving import served_model

    def listening(url: str) -> None:
        screen.note(f"serving {bundle.build[:19]}… at {url} (Ctrl-C to stop); loading the model")

    def ready(url: str) -> None:
        if screen.as_json:
            screen.json({"url": url, "bundle": bundle.digest, "build": bundle.build})
        else:
            screen.note(f"ready; open {url}/ in a browser, or run:", command=curl_line(served_model(bundle), url))

    api.serve(bundle, options=options, listening=listening, ready=ready)


def score(
    model: ModelArgument,
    source: Annotated[
        str,
        argument("INPUT", "CSV, JSON Lines or Parquet: a file, a folder or a glob pattern; local or s3://."),
    ],
    output: Annotated[
        str,
        flag("--output -o OUTPUT", "Where to write: a .csv, .jsonl or .parquet file, or a folder (NAME or NAME.x/)."),
    ],
    *,
    options: ScoreOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Score files. Writes all rows in input order with their predictions, and failed rows to a quarantine file.

    An interrupted job resumes when the same command is run again.
    """
    output_path(output)  # reports an invalid one before the model is bundled
    if options.runner == ScoreOptions().runner:
        if not source.startswith(SCHEME):  # each object would be opened twice
            list_files(source, any_suffix=options.input_format is not None)  # reports a missing one before that, too
        end_in_time(STOPPED_S)
    bundle = _open(model, choice, screen)
    with JobProgress(source.rstrip("/").rpartition("/")[2] or source) as bar:
        report = api.score(bundle, source, output, options=options, progress=bar.show)
    screen.result({"output": output, **report.as_dict()}, "Scored", _facts(report, output, bundle.manifest.row_wise))


def _facts(report: JobReport, output: str, row_wise: bool) -> list[tuple[str, str]]:
    windowed = [("note", "rows were scored in windows, but the model does not declare that its rows are independent")]
    return [("output", output), *report.facts(), *([] if row_wise else windowed)]
