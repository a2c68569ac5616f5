"""The description of a batch job that runners take, its progress, and its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from likewise.batch.journal import JournalState
from likewise.batch.reasons import Reason, described
from likewise.batch.score_options import ScoreOptions
from likewise.core.engine import Engine
from likewise.core.html_table import html_table
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec

Types = Mapping[str, str] | None
"""MLflow's type of each column of the input; None if they were not inferred."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a job.

    rows: completed, including quarantined ones. total: rows of the input, None if the format does not record it.
    fraction: 0 to 1, by rows if the total is known, else by bytes read. tokens: computed. seconds: since the start of
    this run. duplicates: rows that reused the prediction of an equal row. resumed: rows completed by earlier runs.
    status: a text about the system that runs the job.
    """

    rows: int
    total: int | None
    fraction: float
    tokens: int
    seconds: float
    duplicates: int = 0
    resumed: int = 0
    status: str = ""

    def describe(self, first: Progress) -> str:
        """Rows, rows/s of this run, duplicates, the runner's status, and the time left at the pace since `first`.

        Until the first rows of this run are complete, `loading the model` takes the place of the rate.
        """
        rate = (self.rows - self.resumed) / self.seconds if self.seconds else 0.0
        pace = f"{rate:,.0f} rows/s" if self.rows > self.resumed or self.fraction >= 1 else "loading the model"
        total = f"/{self.total:,}" if self.total is not None else ""
        parts = [f"{self.rows:,}{total} rows", pace]
        if self.duplicates:
            parts.append(f"{self.duplicates:,} duplicates")
        if self.resumed:
            parts.append(f"{self.resumed:,} from earlier runs")
        if self.status:
            parts.append(self.status)
        if self.fraction > first.fraction:
            left = (1 - self.fraction) * (self.seconds - first.seconds) / (self.fraction - first.fraction)
            parts.append(f"{timedelta(seconds=round(left))} left")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, repr=False)
class JobReport:
    """The report of a finished job; the content of `_likewise.json`.

    bundle, build: the model digest and the build digest. rows_in = rows_ok + rows_quarantined. duplicates: rows that
    reused the prediction of an equal row. tokens: computed by the engine. seconds: of all runs of the job together,
    without the start of the engine. input_types: MLflow's type of each column of a CSV input, if they were inferred.
    prediction_type: Arrow's type of the predictions in a Parquet output. reasons: why rows were quarantined, with the
    number of rows and the first examples of each. quarantine: the file with all of them, in the manifest only its name;
    None if there are none.
    """

    bundle: str
    rows_in: int
    rows_ok: int
    rows_quarantined: int
    duplicates: int
    engine: str
    seconds: float
    tokens: int
    build: str = ""  # reports of earlier versions have none of these
    input_types: Types = None
    prediction_type: str | None = None
    reasons: Sequence[Reason] = ()
    quarantine: str | None = None

    @classmethod
    def of(
        cls,
        job: ScoreJob,
        label: str,
        counts: JournalState,
        input_types: Types = None,
        prediction_type: str | None = None,
        quarantine: str | None = None,
    ) -> Self:
        """The report of `job` for these counts.  label: of the engine, if no row was scored."""
        bad, seconds = counts.rows - counts.ok, round(counts.seconds, 3)
        engine = ", ".join(counts.engines) or label
        figures = counts.rows, counts.ok, bad, counts.duplicates, engine, seconds, counts.tokens
        why = counts.reasons, quarantine if bad else None
        return cls(job.bundle, *figures, job.build, input_types, prediction_type, *why)

    def as_dict(self) -> dict[str, object]:
        """The JSON object of the manifest."""
        return asdict(self)

    def facts(self) -> list[tuple[str, str]]:
        """Names and values for people."""
        rate = self.rows_in / self.seconds if self.seconds else 0.0
        tokens = f", {self.tokens:,} tokens" if self.tokens > self.rows_in else ""  # else the engine counts rows
        return [
            ("rows", f"{self.rows_in:,} read, {self.rows_ok:,} scored, {self.rows_quarantined:,} quarantined"),
            *[("reason", line) for line in described(self.reasons, self.rows_quarantined)],
            *([("quarantine", self.quarantine)] if self.quarantine else []),
            *(
                [("duplicates", f"{self.duplicates:,} rows reused the prediction of an equal row")]
                if self.duplicates
                else []
            ),
            ("engine", self.engine),
            ("time", f"{self.seconds:.1f} s, {rate:,.1f} rows/s{tokens}"),
            ("bundle", self.bundle),
        ]

    def __repr__(self) -> str:
        counts = f"{self.rows_ok:,} rows scored, {self.rows_quarantined:,} quarantined"
        return f"<JobReport: {counts}, {self.engine}, {self.seconds:.1f} s>"

    def _repr_html_(self) -> str:
        return html_table("Scored", self.facts())


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """A batch job: a model, an input and an output. `progress` is called after every forward pass.

    engine: loaded on first use, so a runner that computes on other machines does not load it. source: a path, a glob
    pattern, an `s3://` URL, or any other input that the runner supports. model: for runners that open the model on
    other machines; None if the caller has an engine without a bundle. traceparent: of the job's span, by which workers
    continue its trace; empty if there is none.
    """

    engine: Engine
    bundle: str
    signature: Signature
    source: str
    output: Path
    options: ScoreOptions
    progress: Callable[[Progress], None]
    model: ModelSpec | None = None
    traceparent: str = ""

    @property
    def build(self) -> str:
        """The build digest; empty if the caller has an engine without a bundle."""
        return self.model.build if self.model else ""
