"""Plain MLflow as a backend: `load_model(…).predict` on typed rows, or its scoring server over HTTP."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from likewise.bundles.open import is_bundle
from likewise.core.errors import ModelFailed
from likewise.core.extras import need
from likewise.core.proxies import OPENER
from likewise.parity.backends.requests import predict_by_calls, predict_by_requests
from likewise.parity.backends.services import exchange
from likewise.parity.batches import Batch
from likewise.parity.compare import RefusedRow
from likewise.parity.comparison import Comparison
from likewise.server.port import listen
from likewise.targets.base import Response
from likewise.targets.http_client import Served

TIMEOUT_S = 600.0  # of a request to the scoring server
POLL_S = 0.1


def predict_with_pyfunc(comparison: Comparison) -> None:
    """`mlflow.pyfunc.load_model(uri).predict` in a separate process, with the rows in the model's types."""
    with started(comparison) as process:
        process.await_loaded()
        predict_by_calls(comparison, process.predict)


def predict_with_server(comparison: Comparison) -> None:
    """MLflow's scoring server in a separate process, over HTTP."""
    with listen("127.0.0.1", 0) as sock, started(comparison, sock.fileno()) as process:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        sock.close()  # a connection is refused if the process ends
        process.await_ping(url)

        def post(body: bytes) -> Response:
            return exchange(f"{url}/invocations", {}, TIMEOUT_S, body, Served())[0]

        predict_by_requests(comparison, post, "mlflow-serve")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that has the model loaded with MLflow."""

    popen: subprocess.Popen[bytes]
    log: IO[bytes]

    def predict(self, batch: Batch) -> object:
        """The model's prediction, in JSON's types, or RefusedRow; ModelFailed if the process has ended."""
        table, params = batch.request.table, batch.request.params
        if batch.unfit is not None:
            reply = self.send({"record": dict(batch.unfit.record)})
        else:
            reply = self.send({"table": table, "params": None if params is None else dict(params)})
        return RefusedRow(reply["refused"], reply["why"]) if "refused" in reply else reply["value"]

    def send(self, message: dict[str, object]) -> dict[str, Any]:
        """The process's reply; ModelFailed if it has ended."""
        assert self.popen.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):
            pickle.dump(message, self.popen.stdin)
            self.popen.stdin.flush()
        return dict(json.loads(self._line()))

    def await_loaded(self) -> None:
        """Wait until the model is loaded; ModelFailed if the process has ended."""
        self._line()

    def _line(self) -> bytes:
        assert self.popen.stdout is not None  # noqa: S101
        if not (line := self.popen.stdout.readline()):
            raise self._ended()
        return line

    def await_ping(self, url: str) -> None:
        """Wait until MLflow's server answers; ModelFailed if the process has ended."""
        while self.popen.poll() is None:
            with suppress(OSError), OPENER.open(f"{url}/ping", timeout=TIMEOUT_S):
                return
            time.sleep(POLL_S)
        raise self._ended()

    def _ended(self) -> ModelFailed:
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return ModelFailed(
            f"plain MLflow ended: {lines[-1] if lines else 'there is no error output'}",
            remedy="fix the model so that MLflow can load and run it",
        )


@contextmanager
def started(comparison: Comparison, listening: int | None = None) -> Iterator[Process]:
    """A process that loads the model with plain MLflow: by its URI, or from the copy in the bundle.

    listening: descriptor of a socket on which it serves HTTP.
    """
    need("mlflow", extra="mlflow")
    model = comparison.model
    uri = str(comparison.bundle.model_path) if is_bundle(Path(model)) else model
    handles = [] if listening is None else [listening]
    command = [sys.executable, "-B", "-P", "-m", "likewise.parity.mlflow_process", *map(str, handles)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # bytecode would be a change of the bundle
    pipe = subprocess.PIPE
    with (
        TemporaryFile() as log,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, pass_fds=handles, env=environment) as popen,
    ):
        assert popen.stdin is not None  # noqa: S101
        try:
            with suppress(BrokenPipeError):  # the first request reports why the process has ended
                popen.stdin.write(f"{uri}\n".encode())  # not an argument: other users can see those
                popen.stdin.flush()
            yield Process(popen, log)
        finally:
            popen.kill()
            with suppress(OSError):  # what it has not read
                popen.stdin.close()
