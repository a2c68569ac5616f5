"""The local runner: one thread reads and tokenizes, another runs the model; rows are written in input order."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import cast

from likewise.batch.chunk_log import ChunkLog
from likewise.batch.columns import RowMaker
from likewise.batch.formats import Chunk
from likewise.batch.job import JobReport, ScoreJob
from likewise.batch.journal import JournalState
from likewise.batch.result_cache import RowResultCache
from likewise.batch.rows import items_of
from likewise.batch.run import Run, run_job
from likewise.batch.score_options import ScoreOptions
from likewise.batch.scored import score_chunk
from likewise.batch.scorer import Scorer, prepare
from likewise.batch.sources import INPUT_CHANGED_REMEDY, Files, open_files
from likewise.core.engine import Work
from likewise.core.errors import InputInvalid, LikewiseError, WrongUsage
from likewise.core.results import Failed
from likewise.telemetry.jobs import chunk_span


def run(job: ScoreJob) -> JobReport:
    """Run the job in this process; see `likewise.batch.score`."""
    _refuse_other_options(job.options)
    return run_job(job, lambda: open_files(job), _place)


def _place(run: Run) -> None:
    """Score the chunks of the input in this process."""
    job, source = run.job, cast(Files, run.input)
    rows = RowMaker(source, job.signature, job.options.column, run.types, job.options.params)
    try:
        label = job.engine.spec.label  # loads the engine, now that input and output have been checked
        state = run.resume("local", label, label)
        with closing(ChunkLog(run.output.staging, state.chunks, job.output)) as log:
            scorer = LocalScorer(run, source, log)
            with closing(_ahead(_prepared(source, rows, job, state))) as chunks:
                for chunk, work in chunks:
                    scorer.score(chunk, work)
        if changed := source.changed():
            raise InputInvalid(changed, remedy=INPUT_CHANGED_REMEDY)
    except (LikewiseError, OSError):
        if source.changed():
            run.output.discard()
        raise


def _refuse_other_options(options: ScoreOptions) -> None:
    for name, value in (("--master", options.master), ("--conf", options.runner_conf)):
        if value:
            raise WrongUsage(
                f"{name} has no effect with the local runner", remedy=f"use --runner spark or ray, or omit {name}"
            )


Ready = tuple[Chunk, Sequence[Work | Failed]]
"""A chunk, and for each of its rows the engine's prepared work or the row's error."""


class LocalScorer:
    """Scores the chunks of one job and adds them to its output."""

    def __init__(self, run: Run, source: Files, log: ChunkLog) -> None:
        """log: of the results within the current chunk."""
        self._run = run
        self._source = source
        self._log = log
        self._lines: list[bytes] = []
        cache = RowResultCache(log=self._lines.append)
        cache.replay(run.output.cached_results())
        self._scorer = Scorer(run.job.engine, budget=run.job.options.budget, cache=cache, log=log)
        self._offset = 0
        run.resumed += log.rows
        run.earlier += log.seconds

    def score(self, chunk: Chunk, work: Sequence[Work | Failed]) -> None:
        """Score a chunk and add it to the output."""
        run, writer = self._run, self._run.output.writer
        on_run = lambda: self._report_progress(chunk, self._scorer.rows)  # noqa: E731
        with chunk_span(run.job.traceparent) as span:
            scored = score_chunk(self._scorer, chunk, work, writer, run.job.signature, on_run)
            run.add([replace(scored, cached=self._lines)])
            span.attributes |= scored.counts.traced
        self._lines.clear()
        self._log.begin(run.output.state.chunks)
        self._offset = chunk.offset
        self._report_progress(chunk, 0)

    def _report_progress(self, chunk: Chunk, rows: int) -> None:
        """Report progress. rows: number of rows of `chunk` scored so far; 0 after it was written."""
        run, source = self._run, self._source
        tokens, duplicates = (self._scorer.tokens, self._scorer.duplicates) if rows else (0, 0)
        if source.rows is None:
            read = self._offset + (chunk.offset - self._offset) * rows / len(chunk)
            fraction = read / max(1, source.size)
        else:
            fraction = (run.output.state.rows + rows) / max(1, source.rows)
        run.report_progress(source.rows, fraction, rows, tokens, duplicates)


def _prepared(source: Files, rows: RowMaker, job: ScoreJob, state: JournalState) -> Iterator[Ready]:
    """The chunks that `state` does not include yet, with their work. InputInvalid if the input has other rows now."""
    skipped = 0
    for number, chunk in enumerate(source.chunks(job.options.window, past=state.chunks)):
        if number >= state.chunks:
            yield chunk, prepare(job.engine, items_of(chunk, rows))
            continue
        skipped += len(chunk)
        if number + 1 == state.chunks and skipped != state.rows:
            cause = f"{source.name} has {skipped} rows up to the point where the interrupted job had {state.rows}"
            raise InputInvalid(cause, remedy="use --restart to start the job again from the beginning")


def _ahead(steps: Iterator[Ready]) -> Generator[Ready, None, None]:
    """Yield `steps`, computing the next one in a second thread while the current one is used: at most two exist."""
    with ThreadPoolExecutor(1, thread_name_prefix="likewise-prepare") as pool:
        upcoming = pool.submit(next, steps, None)
        while (ready := upcoming.result()) is not None:
            upcoming = pool.submit(next, steps, None)
            yield ready
