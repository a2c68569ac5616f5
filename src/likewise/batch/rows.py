"""Helpers for all runners: rows to engine items, results to predictions and errors, checks of a finished job."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import replace

from likewise.batch.columns import RowMaker
from likewise.batch.formats import Chunk, Writer
from likewise.batch.inputs import Input
from likewise.batch.job import JobReport, ScoreJob, Types
from likewise.batch.layout import Layout
from likewise.batch.reasons import described
from likewise.batch.values import as_json
from likewise.core.errors import LikewiseError, ModelRaised, NothingScored, TooManyQuarantined
from likewise.core.items import Item
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Field


def items_of(chunk: Chunk, maker: RowMaker) -> list[Item | Failed]:
    """The rows of `chunk` as the model takes them; an invalid row is replaced by its error."""
    return [
        Failed(chunk.faults[index]) if index in chunk.faults else maker(record, f"row {chunk.first + index}")
        for index, record in enumerate(chunk.records)
    ]


def split_results(
    results: Sequence[Result], writer: Writer, outputs: tuple[Field, ...] | None
) -> tuple[dict[int, object], dict[int, LikewiseError]]:
    """Predictions in the form that `writer` takes, and the errors of all other rows, both by row index."""
    values = [single_value(result.value, outputs) for result in results if isinstance(result, Ok)]
    fitted = iter(writer.fit(values))
    final = [next(fitted) if isinstance(result, Ok) else result for result in results]
    predictions = {index: result.value for index, result in enumerate(final) if isinstance(result, Ok)}
    errors = {index: result.error for index, result in enumerate(final) if isinstance(result, Failed)}
    return predictions, errors


def fingerprint(
    job: ScoreJob, runner: str, engine: object, output_format: str, input_: Input, types: Types
) -> dict[str, object]:
    """What must be unchanged for an interrupted job to resume.

    runner: the kind of runner, which determines the chunks. engine: identifies it. types: inferred types of the
    input's columns.
    """
    options = job.options
    return {
        "likewise": importlib.metadata.version("likewise"),
        "bundle": job.bundle,
        "build": job.build,
        "runner": runner,
        "engine": engine,
        "format": output_format,
        "input_format": input_.format,
        "header": options.header,
        "column": dict(options.column),
        "params": json.loads(as_json(options.params)),
        "window": options.window,
        "budget": options.budget,
        "input": input_.identity,
        "types": types,
    }


def check_outcome(report: JobReport, job: ScoreJob) -> JobReport:
    """The report of a job whose output is complete, with the path of its quarantine.

    TooManyQuarantined if the percentage of rows without a prediction exceeds the job's limit, NothingScored if no
    row has a prediction.  The report is in the `details` of these errors.
    """
    limit, bad = job.options.fail_on_quarantine, report.rows_quarantined
    if bad:
        report = replace(report, quarantine=str(Layout.of(job.output).quarantine))
    percent = 100 * bad / max(1, report.rows_in)
    error: LikewiseError | None = None
    if limit is not None and percent > limit:
        cause = f"{bad} of {report.rows_in} rows quarantined: {percent:.2f} %, more than {limit:g} %"
        error = TooManyQuarantined(_with_reasons(cause, report), remedy=f"{_fix_rows(report, job)} or raise the limit")
    elif not report.rows_ok and not job.options.allow_empty:
        cause = f"none of the {bad} rows was scored" if bad else f"{job.source} has no rows, so nothing was scored"
        fix = _fix_rows(report, job) if bad else "correct the input and run it again with --restart,"
        error = NothingScored(_with_reasons(cause, report), remedy=f"{fix} or add --allow-empty to accept this")
    if error is None:
        return report
    error.details = {"output": str(job.output), **report.as_dict()}
    raise error


def _fix_rows(report: JobReport, job: ScoreJob) -> str:
    """The remedy for quarantined rows, that of their only reason if there is one.

    Names the optional columns if the model raised on rows, which may lack them.
    """
    remedies = {reason["remedy"] for reason in report.reasons}
    fix = remedies.pop() if len(remedies) == 1 else "correct the rows"
    raised = any(reason["code"] == ModelRaised.code for reason in report.reasons)
    optional = [f"`{each.name}`" for each in job.signature.inputs or () if each.name and not each.required]
    hint = f" (the model may need the optional column {' and '.join(optional)})" if raised and optional else ""
    return f"{fix}{hint}, and run it again with --restart,"


def _with_reasons(cause: str, report: JobReport) -> str:
    if not report.rows_quarantined:
        return cause
    return "\n".join([cause, *described(report.reasons, report.rows_quarantined), f"all of them: {report.quarantine}"])


def single_value(value: object, outputs: tuple[Field, ...] | None) -> object:
    """The value of a record with a single column, as `spark_udf` returns it; any other prediction unchanged.

    A record is kept if the declared outputs are records too. A list of one value is that value if a scalar is declared.
    """
    only = outputs[0] if outputs is not None and len(outputs) == 1 else None
    if isinstance(value, list) and len(value) == 1 and only is not None and only.kind in _SCALARS:
        return value[0]
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((name, member),) = value.items()
    if outputs is None or (only is not None and (only.name == name or only.kind not in _RECORDS)):
        return member
    # a Series or an unnamed column of records has the name 0
    return member if name == "0" and isinstance(member, dict) else value


_RECORDS = ("object", "map", "any")
_SCALARS = ("boolean", "integer", "long", "float", "double", "datetime")
