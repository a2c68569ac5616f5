"""Jobs on Spark: the input is cut into chunk files, free executors score them, and the driver assembles the output.

See `architecture/spark.md`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

from likewise.batch import reasons
from likewise.batch.columns import RowMaker
from likewise.batch.formats import RowSource
from likewise.batch.header import Header
from likewise.batch.job import JobReport, ScoreJob
from likewise.batch.journal import Counts
from likewise.batch.layout import Layout, write_errors
from likewise.batch.rows import check_outcome, fingerprint, resume_remedy
from likewise.batch.sinks import publish
from likewise.batch.staging import Claim, check, drop
from likewise.bundles.open import open_exactly
from likewise.core.errors import Interrupted, LikewiseError, ModelFailed, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.targets.spark.inputs import open_input
from likewise.targets.spark.jobs import Jobs
from likewise.targets.spark.plan import ChunkFile, Staging
from likewise.targets.spark.progress import Tally
from likewise.targets.spark.publish import assemble
from likewise.targets.spark.session import is_connect, session
from likewise.targets.spark.tasks import TaskScorer
from likewise.targets.spark.udf import PlacedModel, place_model

log = logging.getLogger("likewise.spark")
CHUNK_ROWS = 2000  # maximum rows per chunk: the work that a lost executor repeats at most, per slot
MIN_CHUNK_ROWS = 64
CHUNKS_PER_SLOT = 4  # minimum, for small inputs
ROW_BYTES = 200  # assumed size of a row in bytes, to estimate the number of rows


def run(job: ScoreJob) -> JobReport:
    """Score `job.source` on Spark; see `likewise.batch.score`.

    Raises what the local runner raises, MissingExtra (no PySpark, no Java), EngineUnavailable (Spark does not start, or
    its job failed), OutputRefused also if executors cannot write to the folder of OUTPUT.
    """
    if job.model is None:
        raise WrongUsage("a job on Spark needs a bundle, not an engine", remedy="use likewise.score(MODEL, …)")
    spark, created = session(job.options.master, job.options.runner_conf)
    try:
        if not is_connect(spark) and spark.sparkContext.uiWebUrl:
            log.info("Spark UI of this job: %s", spark.sparkContext.uiWebUrl)
        report = _Run(job, job.model, spark).run()
    finally:
        if created:
            spark.stop()
    return check_outcome(report, job)


class _Run:
    """One run of a job in one Spark session."""

    def __init__(self, job: ScoreJob, model: ModelSpec, spark: Any) -> None:
        self._job = job
        self._model = model
        self._spark = spark
        self._started = time.monotonic()
        self._tally = Tally(job.progress)
        self._resumable = False  # whether the next run can resume from the staging folder
        header = Header(job.options.header, job.signature, job.options.column)
        self._input = input_ = open_input(spark, job.source, job.options.input_format, header)
        self._layout = Layout.of(job.output)
        self._suffix = self._layout.format(input_.format, job.options.format)
        self._staging = Staging(self._layout.staging.absolute())
        self._layout.protect_inputs(file.path for file in input_.files if file.path)
        with write_errors(self._layout.data):
            check(self._staging.folder)
            restart = job.options.restart or self._staging.replaces
        self._layout.check_existing(restart)
        self._source = input_.columns(self._suffix)
        self._types = input_.inferred_types(job.signature)

    def run(self) -> JobReport:
        """Run the job from snapshot to output; its report."""
        job, layout, staging = self._job, self._layout, self._staging
        RowMaker(cast(RowSource, self._source), job.signature, job.options.column)  # fails early if a column is missing
        placed = place_model(self._spark, open_exactly(self._model), self._model, None)
        with write_errors(layout.data), ExitStack() as undo:
            undo.callback(self._close_staging)  # runs last, after the claim on the folder is released
            claim = Claim(staging.folder, layout.data)
            undo.callback(claim.release)
            engine = {"engine": [self._model.engine, self._model.precision]}
            job_fingerprint = fingerprint(
                job, engine, self._suffix, self._input.format, self._input.identity, self._types
            )
            resumed = staging.resume(job_fingerprint, job.options.restart)
            return self._scored(placed, claim, resumed)

    def _scored(self, placed: PlacedModel, claim: Claim, resumed: bool) -> JobReport:
        job, staging, jobs = self._job, self._staging, Jobs(self._spark, placed)
        try:
            chunks = self._snapshot(jobs)
            options = job.options
            columns = self._source, job.signature, options.column, self._types
            plan = TaskScorer(staging, *columns, self._suffix, options.budget)
            self._tally.start(chunks, staging, resumed=resumed)
            self._resumable = True
            jobs.score(placed, plan, [chunk for chunk in chunks if staging.result(chunk) is None], self._tally)
        except KeyboardInterrupt:
            jobs.cancel()
            raise Interrupted(f"stopped; {self._tally.rows} rows are done", remedy=resume_remedy(job.options)) from None
        except LikewiseError as error:
            jobs.cancel()
            self._resumable = self._resumable and not isinstance(error, ModelFailed)
            if not self._resumable:
                raise
            remedy = f"{error.remedy}; then {resume_remedy(job.options)}"
            raise type(error)(f"{error.cause}; {self._tally.rows} rows are done", remedy=remedy) from error
        parts, counted = assemble(staging, chunks, self._source, job.signature, self._layout, self._suffix)
        report = self._report(counted, parts.prediction_type)
        claim.check()
        publish(self._layout, staging.output, parts.name(0), staging.quarantine, report.as_dict())
        self._resumable = False
        return report

    def _snapshot(self, jobs: Jobs) -> list[ChunkFile]:
        """The input's chunks, cut by an earlier run or by this one."""
        input_, staging = self._input, self._staging
        if staging.snapshot() is None:
            size = CHUNK_ROWS if input_.size is None else input_.size // ROW_BYTES // (CHUNKS_PER_SLOT * jobs.slots)
            rows = min(self._job.options.window, max(MIN_CHUNK_ROWS, min(CHUNK_ROWS, size)))
            staging.keep_snapshot(input_.cut(jobs, rows, str(staging.chunks)), numbered_on=input_.numbered_on)
        chunks = staging.snapshot()
        assert chunks is not None  # noqa: S101  `keep_snapshot` has just written it
        return chunks

    def _report(self, counted: Sequence[Mapping[str, Any]], prediction_type: str | None) -> JobReport:
        names = ("rows", "ok", "duplicates", "tokens", "answered")
        totals = {name: sum(int(counts[name]) for counts in counted) for name in names}
        engines = ", ".join(sorted({str(counts["engine"]) for counts in counted}))
        seconds = self._staging.seconds + time.monotonic() - self._started
        why = reasons.combined(counts["reasons"] for counts in counted)
        counts = Counts(**totals, seconds=seconds, reasons=why)
        return JobReport.of(self._job, engines, counts, self._types, prediction_type, self._layout.quarantine.name)

    def _close_staging(self) -> None:
        if self._resumable:
            self._staging.add_seconds(round(time.monotonic() - self._started, 3))
        else:
            drop(self._staging.folder)
