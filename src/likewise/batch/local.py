"""The local runner: reading and tokenizing in one thread, the model in another, rows back in the input's order."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from likewise.batch.columns import RowMaker
from likewise.batch.formats import Chunk, Source
from likewise.batch.job import Job, Progress, Report
from likewise.batch.scorer import Scorer, prepare
from likewise.batch.sinks import Output
from likewise.batch.sources import open_source
from likewise.core.engine import Work
from likewise.core.errors import InputInvalid, Interrupted, TooManyQuarantined
from likewise.core.items import Item
from likewise.core.results import Failed, Ok
from likewise.core.signature import Field


def run(job: Job) -> Report:
    """See `likewise.batch.score`."""
    scoring: Scoring | None = None
    try:
        source = open_source(job.source, job.options.input_format)
        rows = RowMaker(source, job.signature, job.options.column)
        with Output(job.output, source, job.signature, job.options.format, job.options.restart) as output:
            scoring = Scoring(job, source)  # the first to ask the engine: it loads once input and output are fine
            with closing(_ahead(_prepared(source, rows, job))) as chunks:
                for ready in chunks:
                    scoring.write(ready, output)
            report = scoring.report()
            output.commit(report.as_dict())
    except KeyboardInterrupt:  # at any time: while the engine loads, too
        cause = f"stopped after {scoring.done if scoring else 0} rows; nothing was written to {job.output}"
        raise Interrupted(cause, remedy="run the same command again") from None
    _judge(report, job)
    return report


@dataclass(frozen=True, slots=True)
class Ready:
    """A chunk with the engine's work, or the reason why there is none, for each row."""

    chunk: Chunk
    work: Sequence[Work | Failed]


class Scoring:
    """The engine's part of one job, and what was counted."""

    def __init__(self, job: Job, source: Source) -> None:
        self._job = job
        self._source = source
        self._scorer = Scorer(job.engine, budget=job.options.budget)  # loads the engine, before the clock starts
        self._started = time.monotonic()
        self._rows_ok = self._offset = 0

    @property
    def done(self) -> int:
        """Rows so far, quarantined ones included."""
        return self._scorer.rows

    def write(self, ready: Ready, output: Output) -> None:
        """Answer a chunk and write it."""
        outputs = self._job.signature.outputs
        before = self.done
        results = self._scorer.answer(ready.work, lambda: self._tell(ready.chunk, self.done - before))
        answered = [index for index, result in enumerate(results) if isinstance(result, Ok)]
        fitted = output.fit([_prediction(r.value, outputs) for r in results if isinstance(r, Ok)])
        for index, result in zip(answered, fitted, strict=True):
            results[index] = result
        kept = [index for index, result in enumerate(results) if isinstance(result, Ok)]
        errors = {index: result.error for index, result in enumerate(results) if isinstance(result, Failed)}
        output.write(ready.chunk, kept, [r.value for r in results if isinstance(r, Ok)], errors)
        self._rows_ok += len(kept)
        self._offset = ready.chunk.offset
        self._tell(ready.chunk, 0)

    def report(self) -> Report:
        """The counts so far."""
        return Report(
            bundle=self._job.bundle,
            rows_in=self.done,
            rows_ok=self._rows_ok,
            rows_quarantined=self.done - self._rows_ok,
            duplicates=self._scorer.duplicates,
            engine=self._job.engine.spec.label,
            seconds=round(self._seconds(), 3),
            tokens=self._scorer.tokens,
        )

    def _tell(self, chunk: Chunk, rows: int) -> None:
        """Progress, `rows` rows into a chunk (0 once it is written)."""
        total = self._source.rows
        if total is None:
            read = self._offset + (chunk.offset - self._offset) * rows / len(chunk)
            fraction = read / max(1, self._source.size)
        else:
            fraction = self.done / max(1, total)
        self._job.progress(Progress(self.done, total, min(1.0, fraction), self._scorer.tokens, self._seconds()))

    def _seconds(self) -> float:
        return time.monotonic() - self._started


def _prepared(source: Source, rows: RowMaker, job: Job) -> Iterator[Ready]:
    try:
        for chunk in source.chunks(job.options.window):
            yield Ready(chunk, _work(chunk, rows, job))
    except OSError as error:
        raise InputInvalid(f"{source.path} cannot be read on: {error.strerror}", remedy="check the disk") from error


def _work(chunk: Chunk, rows: RowMaker, job: Job) -> list[Work | Failed]:
    made: list[Item | Failed] = [
        Failed(chunk.faults[index]) if index in chunk.faults else rows(record, f"row {chunk.first + index}")
        for index, record in enumerate(chunk.records)
    ]
    return prepare(job.engine, made)


def _ahead(steps: Iterator[Ready]) -> Generator[Ready, None, None]:
    """The same, each computed in a thread of its own while the one before is being used: at most two are alive."""
    with ThreadPoolExecutor(1, thread_name_prefix="likewise-prepare") as pool:
        coming = pool.submit(next, steps, None)
        while (ready := coming.result()) is not None:
            coming = pool.submit(next, steps, None)
            yield ready


def _prediction(value: object, outputs: tuple[Field, ...] | None) -> object:
    """The one value of a record with one column, as `spark_udf` gives it; else the prediction as it is."""
    if isinstance(value, dict) and len(value) == 1 and (outputs is None or [f.name for f in outputs] == list(value)):
        return next(iter(value.values()))
    return value


def _judge(report: Report, job: Job) -> None:
    limit = job.options.fail_on_quarantine
    share = 100 * report.rows_quarantined / max(1, report.rows_in)
    if limit is not None and share > limit:
        raise TooManyQuarantined(
            f"{report.rows_quarantined} of {report.rows_in} rows quarantined: {share:.2f} %, more than {limit:g} %",
            remedy=f"the reasons are beside {job.output}, the answered rows in it; mend the rows or the limit",
        )
