"""One run of a job, for all runners: checks, resuming, progress, report and errors; a runner only places the chunks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Generic

from likewise.batch.inputs import InputType
from likewise.batch.job import JobReport, Progress, ScoreJob
from likewise.batch.journal import JournalState
from likewise.batch.rows import check_outcome, fingerprint, resume_remedy
from likewise.batch.scored import Scored
from likewise.batch.sinks import Output
from likewise.core.errors import Interrupted, LikewiseError


class Run(Generic[InputType]):
    """One run of a job. A runner calls `resume`, and then `add` for each chunk that is not complete, in order.

    types: see `likewise.batch.columns.inferred_types`. resumed: rows with results of earlier runs. earlier: seconds
    that those runs took.
    """

    def __init__(self, job: ScoreJob, input_: InputType, output: Output) -> None:
        self.job = job
        self.input = input_
        self.output = output
        self.types = input_.inferred_types(job.signature)
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
        self,
        total: int | None,
        fraction: float,
        *,
        rows: int = 0,
        tokens: int = 0,
        duplicates: int = 0,
        status: str = "",
    ) -> None:
        """Report progress. rows, tokens, duplicates: in addition to those in the output.  For the rest see `Progress`."""
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


def run_job(
    job: ScoreJob, open_input: Callable[[], InputType], place: Callable[[Run[InputType]], None]
) -> JobReport:
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
            raise Interrupted("stopped" + _rows_done(output, job), remedy=_resume_remedy(output, job)) from None
        output.drop_staging()  # the output is complete
    except LikewiseError as error:
        if output is None or not output.done:
            raise
        remedy = f"{error.remedy}; then {_resume_remedy(output, job)}"
        raise type(error)(error.cause + _rows_done(output, job), remedy=remedy) from error
    return check_outcome(report, job)


def _rows_done(output: Output | None, job: ScoreJob) -> str:
    """The end of an error message: how many rows are complete and kept."""
    done = output.done if output else 0
    return f"; {done} rows are done" if done else f" after 0 rows; nothing was written to {job.output}"


def _resume_remedy(output: Output | None, job: ScoreJob) -> str:
    return resume_remedy(job.options) if output is not None and output.done else "run the same command again"
