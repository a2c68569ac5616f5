"""The local runner: reading and tokenizing in one thread, the model in another, rows back in the input's order."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from likewise.batch.columns import RowMaker
from likewise.batch.formats import Chunk
from likewise.batch.job import JobReport, Progress, ScoreJob
from likewise.batch.journal import Counts, JournalState
from likewise.batch.result_cache import ResultCache
from likewise.batch.rows import fingerprint, go_on, items_of, judge
from likewise.batch.score_options import ScoreOptions
from likewise.batch.scorer import Scorer, prepare
from likewise.batch.sinks import Output
from likewise.batch.sources import STILL, Files, open_source
from likewise.core.engine import Work
from likewise.core.errors import InputInvalid, Interrupted, LikewiseError, WrongUsage
from likewise.core.results import Failed


def run(job: ScoreJob) -> JobReport:
    """See `likewise.batch.score`."""
    _refuse_options(job.options)
    output: Output | None = None
    try:
        source = open_source(job.source, job.options.input_format)
        rows = RowMaker(source, job.signature, job.options.column)
        with Output(job.output, source, job.signature, job.options.format, job.options.restart) as output:
            report = _scored(job, source, rows, output)
    except KeyboardInterrupt:  # at any time: while the engine loads, too
        raise Interrupted("stopped" + _left(output, job), remedy=_again(output, job)) from None
    except LikewiseError as error:
        if output is not None and output.done:
            raise type(error)(
                error.cause + _left(output, job), remedy=f"{error.remedy}; then {_again(output, job)}"
            ) from error
        raise
    judge(report, job)
    return report


def _scored(job: ScoreJob, source: Files, rows: RowMaker, output: Output) -> JobReport:
    try:
        scoring = LocalScorer(
            job, source, output
        )  # the first to ask the engine: it loads once input and output are fine
        with closing(_ahead(_prepared(source, rows, job, scoring.state))) as chunks:
            for chunk, work in chunks:
                scoring.write(chunk, work)
        report = scoring.report()
        if changed := source.changed():
            raise InputInvalid(changed, remedy=STILL)
        output.commit(report.as_dict())
    except (LikewiseError, OSError):
        if source.changed():
            output.void()
        raise
    return report


def _left(output: Output | None, job: ScoreJob) -> str:
    """What a stopped job leaves, for the end of a sentence."""
    done = output.done if output else 0
    return f"; {done} rows are done" if done else f" after 0 rows; nothing was written to {job.output}"


def _again(output: Output | None, job: ScoreJob) -> str:
    return go_on(job.options) if output is not None and output.done else "run the same command again"


def _refuse_options(options: ScoreOptions) -> None:
    for name, given in (("--master", options.master), ("--conf", options.runner_conf)):
        if given:
            raise WrongUsage(f"{name} says nothing to the local runner", remedy=f"add --runner spark, or drop {name}")


Ready = tuple[Chunk, Sequence[Work | Failed]]
"""A chunk with the engine's work, or the reason why there is none, for each row."""


class LocalScorer:
    """The engine's part of one job, and what was counted. state: where an earlier run was stopped."""

    def __init__(self, job: ScoreJob, source: Files, output: Output) -> None:
        self._job = job
        self._source = source
        self._output = output
        self._lines: list[bytes] = []
        answers = ResultCache(log=self._lines.append)
        self._scorer = scorer = Scorer(job.engine, budget=job.options.budget, answers=answers)  # loads the engine
        engine = {"engine": job.engine.spec.label, "engine_digest": job.engine.spec.digest}
        files = {str(file.path.resolve()) if file.path else file.name: file.identity for file in source.files}
        self.state = state = output.resume(fingerprint(job, engine, output.format, source.format, files))
        answers.replay(output.remembered())
        scorer.rows, scorer.answered = state.rows, state.answered
        scorer.duplicates, scorer.tokens = state.duplicates, state.tokens
        self._rows_ok = state.ok
        self._offset = 0
        self._started = time.monotonic()

    def write(self, chunk: Chunk, work: Sequence[Work | Failed]) -> None:
        """Answer a chunk and write it."""
        before = self._scorer.rows
        results = self._scorer.answer(work, lambda: self._tell(chunk, self._scorer.rows - before))
        kept, errors = self._output.settled(results)
        self._rows_ok += len(kept)
        self._output.write(chunk, list(kept), list(kept.values()), errors, self._lines, self._counts())
        self._lines.clear()
        self._offset = chunk.offset
        self._tell(chunk, 0)

    def report(self) -> JobReport:
        """The counts so far."""
        return JobReport.of(self._job.bundle, self._job.engine.spec.label, self._counts())

    def _counts(self) -> Counts:
        scorer = self._scorer
        seconds = self.state.seconds + self._seconds()
        return Counts(scorer.rows, self._rows_ok, scorer.duplicates, scorer.tokens, scorer.answered, seconds)

    def _tell(self, chunk: Chunk, rows: int) -> None:
        """Progress, `rows` rows into a chunk (0 once it is written)."""
        total, done = self._source.rows, self._scorer.rows
        if total is None:
            read = self._offset + (chunk.offset - self._offset) * rows / len(chunk)
            fraction = read / max(1, self._source.size)
        else:
            fraction = done / max(1, total)
        counts = (self._scorer.tokens, self._seconds(), self._scorer.duplicates, self.state.rows)
        self._job.progress(Progress(done, total, min(1.0, fraction), *counts))

    def _seconds(self) -> float:
        return time.monotonic() - self._started


def _prepared(source: Files, rows: RowMaker, job: ScoreJob, state: JournalState) -> Iterator[Ready]:
    """The chunks that are not done yet."""
    past = 0
    for number, chunk in enumerate(source.chunks(job.options.window, past=state.chunks)):
        if number >= state.chunks:
            yield chunk, prepare(job.engine, items_of(chunk, rows))
            continue
        past += len(chunk)
        if number + 1 == state.chunks and past != state.rows:
            cause = f"{source.name} gives {past} rows where the job that was stopped had {state.rows}"
            raise InputInvalid(cause, remedy="--restart")


def _ahead(steps: Iterator[Ready]) -> Generator[Ready, None, None]:
    """The same, each computed in a thread of its own while the one before is being used: at most two are alive."""
    with ThreadPoolExecutor(1, thread_name_prefix="likewise-prepare") as pool:
        coming = pool.submit(next, steps, None)
        while (ready := coming.result()) is not None:
            coming = pool.submit(next, steps, None)
            yield ready
