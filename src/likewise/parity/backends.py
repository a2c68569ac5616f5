"""The backends that can predict a golden set: URLs, deployments by name, batch runners, and plain MLflow."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from urllib.parse import unquote_to_bytes, urlsplit

from likewise import api, deployments
from likewise.batch import ScoreOptions, runners
from likewise.batch.formats import PREDICTIONS
from likewise.batch.values import as_json
from likewise.bundles.open import is_bundle
from likewise.core.engine import predict_items
from likewise.core.errors import ModelFailed, TargetUnavailable, WrongUsage
from likewise.core.extras import need
from likewise.core.results import Failed
from likewise.core.scratch import scratch_folder
from likewise.parity.client import Post, per_row, predict_by_requests
from likewise.parity.compare import RefusedRow
from likewise.parity.golden import Golden
from likewise.parity.verify_options import VerifyOptions
from likewise.server.auth import authorization
from likewise.targets.base import Response
from likewise.targets.http_client import Served, served_by
from likewise.wire import Form, decode, encode

MLFLOW = "mlflow"
ROW = "likewise_row"


def predict_locally(golden: Golden, bundle: api.Bundle) -> tuple[str, list[object]]:
    """Run the bundle's engine in this process; returns the engine's label and the predictions."""
    with closing(bundle.engine()) as engine:
        request = decode(golden.body(0, len(golden)), None, bundle.signature)
        results = predict_items(engine, request.items(engine.spec.row_wise))
        values = [RefusedRow(r.error.code) if isinstance(r, Failed) else _via_json(r.value) for r in results]
        by_row = request.by_row(engine.spec.row_wise)
        return engine.spec.label, values if by_row else per_row(values[0], len(golden))


def predict_on(
    where: str, golden: Golden, bundle: api.Bundle, model: str, options: VerifyOptions
) -> tuple[Served, list[object]]:
    """Run the golden set on the backend `where`; returns the digests of its bundle, if known, and the predictions.

    Raises NotDeployed for an unknown name, and the errors of the backend.
    """
    if where in runners.names():
        return Served(bundle.digest, bundle.build), _score(where, golden, bundle)
    row_wise = bundle.manifest.row_wise
    if where == MLFLOW:
        with _plain_mlflow(bundle, model) as post:
            return Served(), predict_by_requests(golden, post, where, row_wise)
    if where.startswith(("http://", "https://")):
        endpoint = _Endpoint(where, options)
        predictions = predict_by_requests(golden, endpoint.post, where, row_wise)
        return endpoint.serving, predictions
    name, _, target = where.partition("@")
    receipt, post = deployments.predictor(name, to=target or None)
    return Served(receipt.model.digest, receipt.model.build or None), predict_by_requests(golden, post, where, row_wise)


def _via_json(value: object) -> object:
    """The value as a client receives it: encoded to JSON and decoded again."""
    return json.loads(encode(Form.DOCUMENT, value))


# --- over HTTP -------------------------------------------------------------------------------------------------------


class _Endpoint:
    """A URL. It is used unchanged if it has a path (Ray serves deployments at a route), else `/invocations` is added.

    User information in it is sent as Basic credentials, unless there is a token file.
    serving: the digests in the headers of the last response, if any.
    """

    def __init__(self, url: str, options: VerifyOptions) -> None:
        user = urlsplit(url).netloc.rpartition("@")[0]
        self._url = url.replace(f"{user}@", "", 1) if user else url
        if not urlsplit(url).path.strip("/"):
            self._url = f"{self._url.rstrip('/')}/invocations"
        basic = {"Authorization": f"Basic {b64encode(unquote_to_bytes(user)).decode()}"} if user else {}
        self._authorization = {**basic, **authorization(options.token_file)}
        self._timeout_s = options.timeout_s
        self.serving = Served()

    def post(self, body: bytes) -> Response:
        """Send a request; TargetUnavailable if there is no response."""
        headers = {"Content-Type": deployments.JSON}
        request = urllib.request.Request(self._url, body, headers)  # noqa: S310  `predict_on` checks the scheme
        for name, value in self._authorization.items():
            request.add_unredirected_header(name, value)  # not sent to a host that this one redirects to
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310
                self.serving = served_by(response.headers)
                return Response(response.status, deployments.JSON, response.read())
        except urllib.error.HTTPError as error:
            return Response(error.code, deployments.JSON, error.read())
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: an invalid URL
            invalid = isinstance(error, ValueError | http.client.InvalidURL)  # whose message may quote a password
            reason = "it is not a valid URL" if invalid else error
            raise TargetUnavailable(
                f"no response from {self._url}: {reason}", remedy="check that the service is running, and its URL"
            ) from error


# --- batch jobs ------------------------------------------------------------------------------------------------------


def _score(runner: str, golden: Golden, bundle: api.Bundle) -> list[object]:
    """The predictions that a batch job writes; RefusedRow for quarantined rows."""
    columns = golden.table.columns
    if golden.params or not bundle.signature.inputs or golden.table.sent is not None:
        reason = f"{golden.source} has params" if golden.params else "the model has no signature"
        if golden.table.sent is not None:
            reason = f"{golden.source} has no rows"
        raise WrongUsage(f"{reason}, which batch jobs do not support", remedy=f"remove --against {runner}")
    with scratch_folder("likewise-scratch-verify-") as folder:
        source, output = folder / "golden.jsonl", folder / "scored.jsonl"
        with source.open("w", encoding="utf-8") as stream:
            for number, row in enumerate(golden.table.rows):
                record = dict(zip(columns or ("input",), row, strict=True))
                stream.write(as_json({ROW: number, **record}) + "\n")
        mapping = {} if columns else {"input": "input"}  # the only column in addition to the row number
        options = ScoreOptions(
            runner=runner, column=mapping, allow_empty=True
        )  # rows that are refused are compared too
        api.score(bundle, source, output, options=options)
        with output.open(encoding="utf-8") as stream:
            predictions = {record[ROW]: record[PREDICTIONS] for record in map(json.loads, stream)}
    return [predictions.get(number, RefusedRow("QUARANTINED")) for number in range(len(golden))]


# --- plain MLflow ----------------------------------------------------------------------------------------------------


@contextmanager
def _plain_mlflow(bundle: api.Bundle, model: str) -> Iterator[Post]:
    """A process that loads the model with plain MLflow: by its URI, or from the copy in the bundle.

    Raises CodeNotTrusted.
    """
    need("mlflow", extra="mlflow")
    bundle.trust.require_bundle(bundle)
    uri = str(bundle.model_path) if is_bundle(Path(model)) else model
    with TemporaryFile() as log:
        command = [sys.executable, "-P", "-m", "likewise.parity.mlflow_process"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process:
            try:
                assert process.stdin is not None  # noqa: S101
                with suppress(BrokenPipeError):  # `_exchange` reports why the process has exited
                    process.stdin.write(f"{uri}\n".encode())  # not an argument: other users can see those
                    process.stdin.flush()
                yield partial(_exchange, process, log)
            finally:
                process.kill()


def _exchange(process: subprocess.Popen[bytes], log: IO[bytes], body: bytes) -> Response:
    """Send a request body to the MLflow process and read its response; ModelFailed if the process has exited."""
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(body + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = b""
    if not line:
        raise ModelFailed(
            f"plain MLflow could not load the model: {_last_line(log)}",
            remedy="fix the model so that MLflow can load it",
        )
    status, text = json.loads(line)
    return Response(status, deployments.JSON, str(text).encode())


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "there is no error output"
