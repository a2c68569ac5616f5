"""LitServe with batches of at most 16 that wait at most 20 ms: `python -m bench.peers.lit_server CLASSIFIER PORT`."""
# mypy: disable-error-code="import-not-found, import-untyped, misc, untyped-decorator"

from __future__ import annotations

import sys
from typing import Any

import litserve

from bench.peers.steps import Steps


class Classifier(litserve.LitAPI):
    """Takes `{"text": TEXT}` and returns `{"text": RESPONSE}` on `/predict`."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the classifier; called once in the worker process."""
        self._steps = Steps(sys.argv[1], "litserve")

    def decode_request(self, request: dict[str, str]) -> str:
        """The text of a request."""
        return request["text"]

    def predict(self, texts: Any) -> Any:
        """One forward pass per batch."""
        return self._steps.predict(texts)

    def encode_response(self, output: str) -> dict[str, str]:
        """The JSON response."""
        return {"text": output}


if __name__ == "__main__":
    api = Classifier(max_batch_size=16, batch_timeout=0.02)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
