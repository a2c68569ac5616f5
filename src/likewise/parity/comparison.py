"""One comparison in progress: what is predicted, and what a backend has answered so far."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from likewise import api
from likewise.batch import Progress
from likewise.core.signature import Signature
from likewise.parity.batches import Batch, batches
from likewise.parity.golden import Golden
from likewise.targets.http_client import Served

OnProgress = Callable[[Progress], None]


@dataclass
class Comparison:
    """The golden set, and the answers of one backend.

    ours: the predictions on this machine, as JSON.  model: the URI or path of the model, for MLflow.  order: chooses
    the order of rows and the sizes of requests.  answers: predictions by item; of a job as a job writes them.
    latencies: seconds of each request.  served: the digests of what the backend serves, if it reports them.
    """

    golden: Golden
    ours: Sequence[object]
    bundle: api.Bundle
    model: str
    order: random.Random
    on_progress: OnProgress
    answers: dict[int, object] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    served: Served = field(default_factory=Served)
    started: float = field(default_factory=time.monotonic)

    @property
    def signature(self) -> Signature:
        """That of the model."""
        return self.bundle.signature

    @property
    def row_wise(self) -> bool:
        """Whether the model's rows are independent."""
        return self.bundle.manifest.row_wise

    def batches(self) -> list[Batch]:
        """The golden set as requests, in random order."""
        return batches(self.golden.items, self.row_wise, self.order)

    def answered(self, indices: Sequence[int], values: Sequence[object]) -> None:
        """Note predictions and report progress."""
        self.answers.update(zip(indices, values, strict=True))
        self.report(len(self.answers))

    def report(self, done: int) -> None:
        """Report that `done` items are predicted."""
        total = len(self.golden)
        self.on_progress(Progress(done, total, done / total, 0, time.monotonic() - self.started))
