"""Jobs on several machines: chunk files are cut from the input, scored by any worker, and assembled by the driver.

See `architecture/batch.md`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

from likewise.batch import reasons
from likewise.batch.columns import RowMaker
from likewise.batch.distributed.assembly import assemble
from likewise.batch.distributed.inputs import Input, Workers
from likewise.batch.distributed.staging import ChunkFile, Staging
from likewise.batch.distributed.tally import Tally
from likewise.batch.distributed.tasks import ScorePlan
from likewise.batch.formats import RowSource
from likewise.batch.job import JobReport, ScoreJob
from likewise.batch.journal import Counts
from likewise.batch.layout import Layout, write_errors
from likewise.batch.rows import fingerprint, resume_remedy
from likewise.batch.sinks import publish
from likewise.batch.staging import Claim, check, drop
from likewise.core.errors import Interrupted, LikewiseError, ModelFailed, WrongUsage
from likewise.core.spec import ModelSpec

CHUNK_ROWS = 2000  # maximum rows per chunk: the work that a lost worker repeats at most, per slot
MIN_CHUNK_ROWS = 64
CHUNKS_PER_SLOT = 4  # minimum, for small inputs
ROW_BYTES = 200  # assumed size of a row in bytes, to estimate the number of rows


def model_of(job: ScoreJob) -> ModelSpec:
    """The model that the job's workers open; raises WrongUsage if the caller has an engine without a bundle."""
    if job.model is None:
        raise WrongUsage(
            f"a job with --runner {job.options.runner} needs a bundle, not an engine",
            remedy="use likewise.score(MODEL, …)",
        )
    return job.model


class Run:
    """One run of a job with one set of workers."""

    def __init__(self, job: ScoreJob, input_: Input, place: Callable[[], Workers]) -> None:
        """place: makes the model available to the workers; called once the job has been checked."""
        self._job = job
        self._model = model_of(job)
        self._place = place
        self._started = time.monotonic()
        self._tally = Tally(job.progress)
        self._resumable = False  # whether the next run can resume from the staging folder
        self._input = input_
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
        workers = self._place()
        with write_errors(layout.data), ExitStack() as undo:
            undo.callback(self._close_staging)  # runs last, after the claim on the folder is released
            claim = Claim(staging.folder, layout.data)
            undo.callback(claim.release)
            engine = {"engine": [self._model.engine, self._model.precision]}
            job_fingerprint = fingerprint(
                job, engine, self._suffix, self._input.format, self._input.identity, self._types
            )
            resumed = staging.resume(job_fingerprint, job.options.restart)
            return self._scored(workers, claim, resumed)

    def _scored(self, workers: Workers, claim: Claim, resumed: bool) -> JobReport:
        job, staging = self._job, self._staging
        try:
            chunks = self._snapshot(workers)
            options = job.options
            columns = self._source, job.signature, options.column, self._types
            plan = ScorePlan(staging, *columns, self._suffix, options.budget, job.traceparent)
            self._tally.start(chunks, staging, resumed=resumed)
            self._resumable = True
            workers.score(plan, [chunk for chunk in chunks if staging.result(chunk) is None], self._tally)
        except KeyboardInterrupt:
            workers.cancel()
            raise Interrupted(f"stopped; {self._tally.rows} rows are done", remedy=resume_remedy(job.options)) from None
        except LikewiseError as error:
            workers.cancel()
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

    def _snapshot(self, workers: Workers) -> list[ChunkFile]:
        """The input's chunks, cut by an earlier run or by this one."""
        input_, staging = self._input, self._staging
        if staging.snapshot() is None:
            size = CHUNK_ROWS if input_.size is None else input_.size // ROW_BYTES // (CHUNKS_PER_SLOT * workers.slots)
            rows = min(self._job.options.window, max(MIN_CHUNK_ROWS, min(CHUNK_ROWS, size)))
            staging.keep_snapshot(input_.cut(workers, rows, str(staging.chunks)), numbered_on=input_.numbered_on)
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
