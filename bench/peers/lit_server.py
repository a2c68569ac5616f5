"""LitServe: `python -m bench.peers.lit_server CLASSIFIER PORT`, batches of at most 16 that wait at most 20 ms."""
# mypy: disable-error-code="import-not-found, import-untyped, misc, untyped-decorator"

from __future__ import annotations

import sys
from typing import Any

import litserve

from bench.peers.steps import Steps


class Classifier(litserve.LitAPI):
    """`{"text": TEXT}` in, `{"text": ANSWER}` out, on `/predict`."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """In the worker's process, once."""
        self._steps = Steps(sys.argv[1], "litserve")

    def decode_request(self, request: dict[str, str]) -> str:
        """The text."""
        return request["text"]

    def predict(self, texts: Any) -> Any:
        """One forward pass a batch."""
        return self._steps.answer(texts)

    def encode_response(self, output: str) -> dict[str, str]:
        """As JSON."""
        return {"text": output}


if __name__ == "__main__":
    api = Classifier(max_batch_size=16, batch_timeout=0.02)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
