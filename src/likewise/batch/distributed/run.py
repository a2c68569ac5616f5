"""Jobs on several machines: chunk files are cut from the input, scored by any worker, and collected by the driver.

See `architecture/batch.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from likewise.batch.columns import RowMaker
from likewise.batch.distributed.staging import ChunkFile, Staging
from likewise.batch.distributed.tally import Tally
from likewise.batch.distributed.tasks import ScorePlan
from likewise.batch.formats import RowSource
from likewise.batch.inputs import Input
from likewise.batch.job import JobReport, ScoreJob
from likewise.batch.journal import JournalState
from likewise.batch.layout import write_errors
from likewise.batch.run import Run, run_job
from likewise.core.errors import OutputRefused, WrongUsage
from likewise.core.spec import ModelSpec

CHUNK_ROWS = 2000  # maximum rows per chunk: the work that a lost worker repeats at most, per slot
MIN_CHUNK_ROWS = 64
CHUNKS_PER_SLOT = 4  # minimum, for small inputs
ROW_BYTES = 200  # assumed size of a row in bytes, to estimate the number of rows


class Workers(Protocol):
    """The workers of a job, which have the model.

    slots: number of tasks that run at once.  cut: calls `cut_file` with each number below `count`; returns the results.
    score: calls `score_file` for each chunk, and updates the tally while they run.  Both raise the first error.
    cancel: ends everything that runs.
    """

    @property
    def slots(self) -> int: ...

    def cut(self, count: int, arguments: tuple[Any, ...]) -> Sequence[Any]: ...

    def score(self, plan: ScorePlan, chunks: Sequence[ChunkFile], tally: Tally) -> None: ...

    def cancel(self) -> None: ...


def model_of(job: ScoreJob) -> ModelSpec:
    """The model that the job's workers open; raises WrongUsage if the caller has an engine without a bundle."""
    if job.model is None:
        raise WrongUsage(
            f"a job with --runner {job.options.runner} needs a bundle, not an engine",
            remedy="use likewise.score(MODEL, …)",
        )
    return job.model


def run(job: ScoreJob, open_input: Callable[[], Input], workers: Callable[[], Workers]) -> JobReport:
    """Run a job on workers.  workers: makes the model available to them; called once the job has been checked."""
    return run_job(job, open_input, lambda current: _place(current, workers))


def _place(run: Run, get_workers: Callable[[], Workers]) -> None:
    job, output, model = run.job, run.output, model_of(run.job)
    RowMaker(cast(RowSource, output.columns), job.signature, job.options.column)  # fails early if a column is missing
    workers = get_workers()
    try:
        state = run.resume("spark or ray", [model.engine, model.precision])
        staging = Staging(output.staging.absolute())
        with write_errors(output.layout.data):
            chunks = _snapshot(run.input, staging, workers, job.options.window, state)
            tally = Tally(run, staging, chunks)
            columns = output.columns, job.signature, job.options.column, run.types
            options = job.options
            plan = ScorePlan(staging, *columns, output.format, options.budget, job.traceparent, options.params)
            workers.score(plan, tally.missing, tally)
            tally.finish()
    except BaseException:
        workers.cancel()
        raise


def _snapshot(
    input_: Input, staging: Staging, workers: Workers, window: int, state: JournalState
) -> Sequence[ChunkFile]:
    """The input's chunks, cut by an earlier run or by this one.  OutputRefused if they are not those of `state`."""
    chunks = staging.snapshot()
    if sum(chunk.rows for chunk in (chunks or ())[: state.chunks]) != state.rows:
        raise OutputRefused(
            f"the chunks in {staging.folder} are not those of the interrupted job", remedy="use --restart"
        )
    if chunks is not None:
        return chunks
    size = CHUNK_ROWS if input_.size is None else input_.size // ROW_BYTES // (CHUNKS_PER_SLOT * workers.slots)
    rows = min(window, max(MIN_CHUNK_ROWS, min(CHUNK_ROWS, size)))
    return staging.keep_snapshot(input_.cut(workers, rows, str(staging.chunks)), numbered_on=input_.numbered_on)
