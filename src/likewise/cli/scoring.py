"""The command `score`."""

from __future__ import annotations

from typing import Annotated

from likewise import api
from likewise.batch import JobReport, ScoreOptions
from likewise.batch.listing import list_files
from likewise.batch.runners import output_path
from likewise.batch.s3 import SCHEME
from likewise.cli import end_in_time
from likewise.cli.arguments import Choice, ModelArgument, opened
from likewise.cli.flags import argument, flag
from likewise.cli.progress import JobProgress
from likewise.cli.screen import Screen

STOPPED_S = 10.0  # in which a job has to end after a signal, with what it has scored


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
    bundle = opened(model, choice, screen)
    with JobProgress(source.rstrip("/").rpartition("/")[2] or source) as bar:
        report = api.score(bundle, source, output, options=options, progress=bar.show)
    screen.result({"output": output, **report.as_dict()}, "Scored", _facts(report, output, bundle.manifest.row_wise))


def _facts(report: JobReport, output: str, row_wise: bool) -> list[tuple[str, str]]:
    windowed = [("note", "rows were scored in windows, but the model does not declare that its rows are independent")]
    return [("output", output), *report.facts(), *([] if row_wise else windowed)]
