"""Workers of a job that run in this process."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.batch.scoring import TEXT, FunctionEngine, upper

from likewise.batch import JobReport, Progress, ScoreOptions
from likewise.batch.distributed.run import run
from likewise.batch.distributed.staging import ChunkFile, Staging
from likewise.batch.distributed.tally import Tally
from likewise.batch.distributed.tasks import ScorePlan, cut_file, score_file
from likewise.batch.job import ScoreJob
from likewise.batch.sources import open_files
from likewise.core.items import Row
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec

WINDOW = 16


class InProcess:
    """Scores chunks in a random order, with the seed 0 in their own.

    It is interrupted like by Ctrl-C after `most` of them.  scored: their names.
    """

    slots = 2

    def __init__(self, predict: Callable[[Row], object] = upper, seed: int = 0, most: int = 10**6) -> None:
        self.engine = FunctionEngine(predict)
        self.random = random.Random(seed) if seed else None
        self.most = most
        self.scored: list[str] = []
        self.staging: Staging | None = None

    def cut(self, count: int, arguments: tuple[Any, ...]) -> Sequence[Mapping[str, Any]]:
        return [cut_file(number, *arguments) for number in range(count)]

    def score(self, plan: ScorePlan, chunks: Sequence[ChunkFile], tally: Tally) -> None:
        self.staging = plan.staging
        for chunk in self.random.sample(list(chunks), len(chunks)) if self.random else chunks:
            if len(self.scored) == self.most:
                tally.update(chunks)
                raise KeyboardInterrupt
            score_file(lambda: self.engine, plan, chunk.name, chunk.row_offset)
            self.scored.append(chunk.name)
            if self.random is None or self.random.random() < 0.7:  # a driver may look at any time
                tally.update(chunks)

    def cancel(self) -> None:
        pass


def run_on(
    workers: InProcess,
    source: Path,
    output: Path,
    progress: Callable[[Progress], None] = lambda _: None,
    signature: Signature = TEXT,
    **options: Any,
) -> JobReport:
    model = ModelSpec("sha256:b", build="sha256:c")
    options = {"window": WINDOW, **options}
    job = ScoreJob(
        workers.engine, model.digest, signature, str(source), output, ScoreOptions(**options), progress, model
    )
    return run(job, partial(open_files, job), lambda: workers)
