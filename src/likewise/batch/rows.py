"""A chunk's rows on their way to the engine and back, for every runner, and the judgement of a finished job."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence

from likewise.batch.columns import RowMaker
from likewise.batch.formats import Chunk, Writer
from likewise.batch.job import JobReport, ScoreJob
from likewise.batch.score_options import ScoreOptions
from likewise.core.errors import LikewiseError, TooManyQuarantined
from likewise.core.items import Item
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Field


def items_of(chunk: Chunk, maker: RowMaker) -> list[Item | Failed]:
    """The model's rows, or why one cannot be read or made."""
    return [
        Failed(chunk.faults[index]) if index in chunk.faults else maker(record, f"row {chunk.first + index}")
        for index, record in enumerate(chunk.records)
    ]


def settled(
    results: Sequence[Result], writer: Writer, outputs: tuple[Field, ...] | None
) -> tuple[dict[int, object], dict[int, LikewiseError]]:
    """By index: predictions as the output's format holds them, and the errors of all other rows."""
    given = [_one_value(result.value, outputs) for result in results if isinstance(result, Ok)]
    fitted = iter(writer.fit(given))
    final = [next(fitted) if isinstance(result, Ok) else result for result in results]
    kept = {index: result.value for index, result in enumerate(final) if isinstance(result, Ok)}
    errors = {index: result.error for index, result in enumerate(final) if isinstance(result, Failed)}
    return kept, errors


def fingerprint(
    job: ScoreJob, engine: Mapping[str, object], output_format: str, input_format: str, files: object
) -> dict[str, object]:
    """What must be the same for a stopped job to go on; engine: what tells its answers from another's."""
    options = job.options
    return {
        "likewise": importlib.metadata.version("likewise"),
        "bundle": job.bundle,
        **engine,
        "format": output_format,
        "input_format": input_format,
        "column": dict(options.column),
        "window": options.window,
        "budget": options.budget,
        "input": files,
    }


def go_on(options: ScoreOptions) -> str:
    """The remedy for a job that was stopped and has chunks that are done."""
    return "run the same command again" + ", without --restart," * options.restart + " to go on"


def judge(report: JobReport, job: ScoreJob) -> None:
    """TooManyQuarantined where more rows have no answer than the job allows."""
    limit = job.options.fail_on_quarantine
    share = 100 * report.rows_quarantined / max(1, report.rows_in)
    if limit is not None and share > limit:
        raise TooManyQuarantined(
            f"{report.rows_quarantined} of {report.rows_in} rows quarantined: {share:.2f} %, more than {limit:g} %",
            remedy=f"the reasons are beside {job.output}, the answered rows in it; mend the rows or the limit",
        )


def _one_value(value: object, outputs: tuple[Field, ...] | None) -> object:
    """The one value of a record with one column, as `spark_udf` gives it; else the prediction as it is."""
    if isinstance(value, dict) and len(value) == 1 and (outputs is None or [f.name for f in outputs] == list(value)):
        return next(iter(value.values()))
    return value
