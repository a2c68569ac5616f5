"""One batch job, as every runner takes it, and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from likewise.batch.journal import Counts
from likewise.batch.score_options import ScoreOptions
from likewise.core.engine import Engine
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a job stands.

    rows: done, quarantined ones included. total: rows of the input, None where the format does not say.
    fraction: 0 to 1, by rows where the total is known, else by bytes read. tokens: computed. seconds: since the start
    of this run. duplicates: rows that got an equal row's answer. resumed: rows that earlier runs have done. status: of
    the system that runs the job, in words.
    """

    rows: int
    total: int | None
    fraction: float
    tokens: int
    seconds: float
    duplicates: int = 0
    resumed: int = 0
    status: str = ""


@dataclass(frozen=True, slots=True)
class JobReport:
    """What `_likewise.json` holds.

    bundle: digest. rows_in = rows_ok + rows_quarantined. duplicates: rows that were answered by an equal row's answer.
    tokens: what the engine computed. seconds: the whole job, of all its runs, engine start excluded.
    """

    bundle: str
    rows_in: int
    rows_ok: int
    rows_quarantined: int
    duplicates: int
    engine: str
    seconds: float
    tokens: int

    @classmethod
    def of(cls, bundle: str, engine: str, counts: Counts) -> Self:
        """Of what was counted."""
        bad, seconds = counts.rows - counts.ok, round(counts.seconds, 3)
        return cls(bundle, counts.rows, counts.ok, bad, counts.duplicates, engine, seconds, counts.tokens)

    def as_dict(self) -> dict[str, object]:
        """The manifest's JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """A model, an input, an output. `progress` is called after every forward pass.

    engine: loads when it is first asked, so a runner that computes elsewhere does not ask it. source: a path, a glob,
    an `s3://` address, or what else the runner reads. model: for runners that open it on other
    machines; None where the caller has an engine and no bundle.
    """

    engine: Engine
    bundle: str
    signature: Signature
    source: str
    output: Path
    options: ScoreOptions
    progress: Callable[[Progress], None]
    model: ModelSpec | None = None
