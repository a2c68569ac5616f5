"""The local runner: one thread reads and tokenizes, another runs the model; rows are written in input order."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from likewise.batch import quarantine, reasons
from likewise.batch.columns import RowMaker, inferred_types
from likewise.batch.formats import Chunk
from likewise.batch.header import Header
from likewise.batch.job import JobReport, Progress, ScoreJob, Types
from likewise.batch.journal import Counts, JournalState
from likewise.batch.result_cache import RowResultCache
from likewise.batch.rows import check_outcome, fingerprint, items_of, resume_remedy
from likewise.batch.score_options import ScoreOptions
from likewise.batch.scorer import Scorer, prepare
from likewise.batch.sinks import Output
from likewise.batch.sources import INPUT_CHANGED_REMEDY, Files, open_source
from likewise.core.engine import Work
from likewise.core.errors import InputInvalid, Interrupted, LikewiseError, WrongUsage
from likewise.core.results import Failed
from likewise.telemetry.jobs import chunk_span


def run(job: ScoreJob) -> JobReport:
    """Run the job in this process; see `likewise.batch.score`."""
    _refuse_other_options(job.options)
    output: Output | None = None
    report: JobReport | None = None
    try:
        header = Header(job.options.header, job.signature, job.options.column)
        source = open_source(job.source, job.options.input_format, header)
        types = inferred_types(source, job.signature)
        rows = RowMaker(source, job.signature, job.options.column, types)
        with Output(job.output, source, job.signature, job.options.format, job.options.restart) as output:
            report = _score(job, source, rows, types, output)
    except KeyboardInterrupt:  # may come at any time, also while the engine loads
        if report is not None and output is not None:  # the output is complete
            output.drop_staging()
            return check_outcome(report, job)
        raise Interrupted("stopped" + _rows_done(output, job), remedy=_resume_remedy(output, job)) from None
    except LikewiseError as error:
        if output is not None and output.done:
            raise type(error)(
                error.cause + _rows_done(output, job), remedy=f"{error.remedy}; then {_resume_remedy(output, job)}"
            ) from error
        raise
    return check_outcome(report, job)


def _score(job: ScoreJob, source: Files, rows: RowMaker, types: Types, output: Output) -> JobReport:
    try:
        scorer = LocalScorer(
            job, source, types, output
        )  # loads the engine, now that input and output have been checked
        with closing(_ahead(_prepared(source, rows, job, scorer.state))) as chunks:
            for chunk, work in chunks:
                scorer.write(chunk, work)
        report = scorer.report()
        if changed := source.changed():
            raise InputInvalid(changed, remedy=INPUT_CHANGED_REMEDY)
        output.commit(report.as_dict())
    except (LikewiseError, OSError):
        if source.changed():
            output.discard()
        raise
    return report


def _rows_done(output: Output | None, job: ScoreJob) -> str:
    """The end of an error message: how many rows are complete and kept."""
    done = output.done if output else 0
    return f"; {done} rows are done" if done else f" after 0 rows; nothing was written to {job.output}"


def _resume_remedy(output: Output | None, job: ScoreJob) -> str:
    return resume_remedy(job.options) if output is not None and output.done else "run the same command again"


def _refuse_other_options(options: ScoreOptions) -> None:
    for name, value in (("--master", options.master), ("--conf", options.runner_conf)):
        if value:
            raise WrongUsage(
                f"{name} has no effect with the local runner", remedy=f"use --runner spark or ray, or omit {name}"
            )


Ready = tuple[Chunk, Sequence[Work | Failed]]
"""A chunk, and for each of its rows the engine's prepared work or the row's error."""


class LocalScorer:
    """Scores and writes the chunks of one job, and counts rows. state: what earlier runs have completed."""

    def __init__(self, job: ScoreJob, source: Files, types: Types, output: Output) -> None:
        self._job = job
        self._types = types
        self._source = source
        self._output = output
        self._lines: list[bytes] = []
        cache = RowResultCache(log=self._lines.append)
        loaded = job.engine.spec  # loads the engine
        engine = {"engine": loaded.label}
        files = {str(file.path.resolve()) if file.path else file.name: file.identity for file in source.files}
        self.state = state = output.resume(fingerprint(job, engine, output.format, source.format, files, types))
        cache.replay(output.cached_results())
        self._scorer = scorer = Scorer(job.engine, budget=job.options.budget, cache=cache, log=output.chunk_log)
        self._resumed = state.rows + output.chunk_log.rows
        self._before = state.seconds + output.chunk_log.seconds
        scorer.rows, scorer.answered = state.rows, state.answered
        scorer.duplicates, scorer.tokens = state.duplicates, state.tokens
        self._rows_ok, self._reasons = state.ok, state.reasons
        self._offset = 0
        self._started = time.monotonic()

    def write(self, chunk: Chunk, work: Sequence[Work | Failed]) -> None:
        """Score a chunk and write it to the output."""
        with chunk_span(self._job.traceparent) as span:
            tokens, ok = self._scorer.tokens, self._rows_ok
            self._write(chunk, work)
            counted = len(chunk), self._rows_ok - ok, self._scorer.tokens - tokens
            span.attributes |= zip(("rows", "rows_ok", "tokens"), counted, strict=True)

    def _write(self, chunk: Chunk, work: Sequence[Work | Failed]) -> None:
        before = self._scorer.rows
        results = self._scorer.score(work, lambda: self._report_progress(chunk, self._scorer.rows - before))
        predictions, errors = self._output.split_results(results)
        self._rows_ok += len(predictions)
        indices, values = list(predictions), list(predictions.values())
        entries = quarantine.entries(chunk, errors)
        self._reasons = reasons.add(self._reasons, entries)
        self._output.write(chunk, indices, values, entries, self._lines, self._counts())
        self._lines.clear()
        self._offset = chunk.offset
        self._report_progress(chunk, 0)

    def report(self) -> JobReport:
        """The job's report with the counts so far."""
        label = self._job.engine.spec.label
        output = self._output
        more = self._types, output.prediction_type, output.layout.quarantine.name
        return JobReport.of(self._job, label, self._counts(), *more)

    def _counts(self) -> Counts:
        scorer = self._scorer
        seconds = self._before + self._seconds()
        figures = scorer.rows, self._rows_ok, scorer.duplicates, scorer.tokens, scorer.answered, seconds
        return Counts(*figures, self._reasons)

    def _report_progress(self, chunk: Chunk, rows: int) -> None:
        """Report progress. rows: number of rows of `chunk` scored so far; 0 after it was written."""
        total, done = self._source.rows, self._scorer.rows
        if total is None:
            read = self._offset + (chunk.offset - self._offset) * rows / len(chunk)
            fraction = read / max(1, self._source.size)
        else:
            fraction = done / max(1, total)
        counts = (self._scorer.tokens, self._seconds(), self._scorer.duplicates, self._resumed)
        self._job.progress(Progress(done, total, min(1.0, fraction), *counts))

    def _seconds(self) -> float:
        return time.monotonic() - self._started


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
