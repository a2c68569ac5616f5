"""Jobs on Spark: the input cut into chunk files, each scored by whichever executor is free, put together at the end.

See `architecture/spark.md`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

from likewise.batch.columns import RowMaker
from likewise.batch.formats import RowSource
from likewise.batch.job import JobReport, ScoreJob
from likewise.batch.journal import Counts
from likewise.batch.layout import Layout, write_errors
from likewise.batch.rows import check_quarantine_limit, fingerprint, resume_remedy
from likewise.batch.sinks import publish
from likewise.batch.staging import Claim, drop
from likewise.bundles.open import open_bundle
from likewise.core.errors import Interrupted, LikewiseError, ModelFailed, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.targets.spark.inputs import open_input
from likewise.targets.spark.jobs import Jobs
from likewise.targets.spark.plan import ChunkFile, Staging
from likewise.targets.spark.progress import Tally
from likewise.targets.spark.publish import put_together
from likewise.targets.spark.session import is_connect, session
from likewise.targets.spark.tasks import TaskScorer
from likewise.targets.spark.udf import Placed, place

log = logging.getLogger("likewise.spark")
CHUNK_ROWS = 2000  # most rows of a chunk: what a lost executor costs at most, per slot
LEAST_ROWS = 64
CHUNKS_A_SLOT = 4  # at least, where the input is small
ROW_BYTES = 200  # of text, taken for the size of a row where a format does not say how many there are


def run(job: ScoreJob) -> JobReport:
    """Score `job.source` on Spark; see `likewise.batch.score`.

    Raises what the local runner does, MissingExtra (no pyspark, no Java), EngineUnavailable (Spark does not start, or
    its job failed), OutputRefused too where executors do not see the folder of OUTPUT.
    """
    if job.model is None:
        raise WrongUsage("a job on Spark needs a bundle, not an engine", remedy="likewise.score(MODEL, …)")
    spark, made = session(job.options.master, job.options.runner_conf)
    try:
        if not is_connect(spark) and spark.sparkContext.uiWebUrl:
            log.info("Spark's own page of this job: %s", spark.sparkContext.uiWebUrl)
        report = _Run(job, job.model, spark).run()
    finally:
        if made:
            spark.stop()
    check_quarantine_limit(report, job)
    return report


class _Run:
    """One job in one session."""

    def __init__(self, job: ScoreJob, model: ModelSpec, spark: Any) -> None:
        self._job = job
        self._model = model
        self._spark = spark
        self._started = time.monotonic()
        self._tally = Tally(job.progress)
        self._kept = False  # whether a next run finds something to go on with
        self._given = given = open_input(spark, job.source, job.options.input_format)
        self._layout = Layout.of(job.output)
        self._suffix = self._layout.format(given.format, job.options.format)
        self._staging = Staging(self._layout.staging.absolute())
        self._layout.protect_inputs(file.path for file in given.files if file.path)
        self._layout.check_existing(job.options.restart or self._staging.replaces)
        self._source = given.given(self._suffix)

    def run(self) -> JobReport:
        """The whole job."""
        job, layout, staging = self._job, self._layout, self._staging
        RowMaker(cast(RowSource, self._source), job.signature, job.options.column)  # says now which column is missing
        placed = place(self._spark, open_bundle(self._model.folder), self._model, None)
        with write_errors(layout.data), ExitStack() as undo:
            undo.callback(self._leave)  # last of all, when the folder is free
            undo.callback(Claim(staging.folder, layout.data).release)
            engine = {"engine": [placed.key, self._model.engine, self._model.precision]}
            said = fingerprint(job, engine, self._suffix, self._given.format, self._given.identity)
            resumed = staging.resume(said, job.options.restart)
            return self._scored(placed, resumed)

    def _scored(self, placed: Placed, resumed: bool) -> JobReport:
        job, staging, jobs = self._job, self._staging, Jobs(self._spark, placed)
        try:
            chunks = self._snapshot(jobs)
            options = job.options
            plan = TaskScorer(staging, self._source, job.signature, options.column, self._suffix, options.budget)
            self._tally.begin(chunks, staging, resumed=resumed)
            self._kept = True
            jobs.score(placed, plan, [chunk for chunk in chunks if staging.result(chunk) is None], self._tally)
        except KeyboardInterrupt:
            jobs.cancel()
            raise Interrupted(f"stopped; {self._tally.rows} rows are done", remedy=resume_remedy(job.options)) from None
        except LikewiseError as error:
            jobs.cancel()
            self._kept = self._kept and not isinstance(error, ModelFailed)
            if not self._kept:
                raise
            remedy = f"{error.remedy}; then {resume_remedy(job.options)}"
            raise type(error)(f"{error.cause}; {self._tally.rows} rows are done", remedy=remedy) from error
        parts, counted = put_together(staging, chunks, self._source, job.signature, self._layout, self._suffix)
        report = self._report(counted)
        publish(self._layout, staging.output, parts.name(0), staging.quarantine, report.as_dict())
        self._kept = False
        return report

    def _snapshot(self, jobs: Jobs) -> list[ChunkFile]:
        """The input's chunks, cut by an earlier run or now."""
        given, staging = self._given, self._staging
        if staging.snapshot() is None:
            size = CHUNK_ROWS if given.size is None else given.size // ROW_BYTES // (CHUNKS_A_SLOT * jobs.slots)
            rows = min(self._job.options.window, max(LEAST_ROWS, min(CHUNK_ROWS, size)))
            staging.keep_snapshot(given.cut(jobs, rows, str(staging.chunks)), numbered_on=given.numbered_on)
        chunks = staging.snapshot()
        assert chunks is not None  # noqa: S101  it was written just now
        return chunks

    def _report(self, counted: Sequence[Mapping[str, Any]]) -> JobReport:
        names = ("rows", "ok", "duplicates", "tokens", "answered")
        totals = {name: sum(int(counts[name]) for counts in counted) for name in names}
        engines = ", ".join(sorted({str(counts["engine"]) for counts in counted}))
        seconds = self._staging.seconds + time.monotonic() - self._started
        return JobReport.of(self._job.bundle, engines, Counts(**totals, seconds=seconds))

    def _leave(self) -> None:
        if self._kept:
            self._staging.add_seconds(round(time.monotonic() - self._started, 3))
        else:
            drop(self._staging.folder)
