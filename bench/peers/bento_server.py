"""BentoML with adaptive batching: `CLASSIFIER=FOLDER bentoml serve bench.peers.bento_server:Classifier`."""
# mypy: disable-error-code="import-not-found, import-untyped, misc, untyped-decorator"

from __future__ import annotations

import os

import bentoml

from bench.peers.steps import Steps


@bentoml.service(workers=1, traffic={"timeout": 120})
class Classifier:
    """Takes `{"texts": [TEXT]}` and returns `[RESPONSE]` on `/predict`."""

    def __init__(self) -> None:
        self._steps = Steps(os.environ["CLASSIFIER"], "bentoml")

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=60_000)
    def predict(self, texts: list[str]) -> list[str]:
        """One forward pass per batch; max_latency_ms limits the duration of a request, and its default is too low."""
        return self._steps.predict(texts)
