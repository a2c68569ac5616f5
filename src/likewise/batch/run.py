"""One run of a job, for all runners: checks, resuming, progress, report and errors; a runner only places the chunks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import cast

from likewise.batch.columns import inferred_types
from likewise.batch.formats import RowSource
from likewise.batch.inputs import Input
from likewise.batch.job import JobReport, Progress, ScoreJob
from likewise.batch.journal import JournalState
from likewise.batch.rows import check_outcome, fingerprint
from likewise.batch.scored import Scored
from likewise.batch.sinks import Output
from likewise.core.errors import Interrupted, LikewiseError


class Run:
    """One run of a job. A runner calls `resume`, and then `add` for each chunk that is not complete, in order.

    types: see `likewise.batch.columns.inferred_types`. resumed: rows with results of earlier runs. earlier: seconds
    that those runs took.
    """

    def __init__(self, job: ScoreJob, input_: Input, output: Output) -> None:
        self.job = job
        self.input = input_
        self.output = output
        self.types = inferred_types(cast(RowSource, input_), job.signature)
        self.resumed = 0
        self.earlier = 0.0
        self._label = ""

    def resume(self, runner: str, engine: object, label: str = "") -> JournalState:
        """Resume the interrupted job, or start: what earlier runs have completed.

        runner: the name of the kind of runner. engine: identifies the engine. label: of an engine that is known now.
        Raises OutputRefused if the interrupted job is a different one.
        """
        state = self.output.resume(fingerprint(self.job, runner, engine, self.output.format, self.input, self.types))
        self.resumed, self.earlier, self._label = state.rows, state.seconds, label
        self._started = time.monotonic()
        return state

    def add(self, results: Iterable[Scored]) -> None:
        """Append the results of the next chunks to the output."""
        self.output.write(results, lambda: self.earlier + self._seconds())

    def report_progress(
        self, total: int | None, fraction: float, rows: int, tokens: int, duplicates: int, status: str = ""
    ) -> None:
        """Report progress, see `Progress`.  rows, tokens, duplicates: in addition to those in the output."""
        state = self.output.state
        counts = state.tokens + tokens, self._seconds(), state.duplicates + duplicates, self.resumed, status
        self.job.progress(Progress(state.rows + rows, total, min(1.0, fraction), *counts))

    def publish(self) -> JobReport:
        """Publish the output, which has the results of all chunks; the job's report."""
        output = self.output
        more = self.types, output.prediction_type, output.layout.quarantine.name
        report = JobReport.of(self.job, self._label, output.state, *more)
        output.commit(report.as_dict())
        return report

    def _seconds(self) -> float:
        return time.monotonic() - self._started


def run_job(job: ScoreJob, open_input: Callable[[], Input], place: Callable[[Run], None]) -> JobReport:
    """Run a job, of which `place` scores the chunks; see `likewise.batch.score`."""
    output: Output | None = None
    report: JobReport | None = None
    try:
        input_ = open_input()
        with Output(job, input_) as output:
            run = Run(job, input_, output)
            place(run)
            report = run.publish()
    except KeyboardInterrupt:  # may come at any time, also while the engine loads
        if report is None or output is None:
            rows, remedy = _rows_kept(output, job)
            raise Interrupted(f"stopped{rows}", remedy=remedy) from None
        output.drop_staging()  # the output is complete
    except LikewiseError as error:
        if output is None or not output.done:
            raise
        rows, again = _rows_kept(output, job)
        remedy = error.remedy if "--restart" in error.remedy else f"{error.remedy}; then {again}"
        raise type(error)(error.cause + rows, remedy=remedy) from error
    return check_outcome(report, job)


def _rows_kept(output: Output | None, job: ScoreJob) -> tuple[str, str]:
    """For error messages: how many rows are complete and kept, and what to do."""
    again = "run the same command again"
    if output is None or not output.done:
        return f" after 0 rows; nothing was written to {job.output}", again
    return f"; {output.done} rows are done", again + ", without --restart," * job.options.restart + " to resume"
