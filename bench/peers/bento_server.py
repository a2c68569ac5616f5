"""BentoML: `CLASSIFIER=FOLDER bentoml serve bench.peers.bento_server:Classifier`, with its adaptive batches."""
# mypy: disable-error-code="import-not-found, import-untyped, misc, untyped-decorator"

from __future__ import annotations

import os

import bentoml

from bench.peers.steps import Steps


@bentoml.service(workers=1, traffic={"timeout": 120})
class Classifier:
    """`{"texts": [TEXT]}` in, `[ANSWER]` out, on `/predict`."""

    def __init__(self) -> None:
        self._steps = Steps(os.environ["CLASSIFIER"], "bentoml")

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=60_000)
    def predict(self, texts: list[str]) -> list[str]:
        """One forward pass a batch; the latency is what a request may take, whose default would refuse most."""
        return self._steps.answer(texts)
