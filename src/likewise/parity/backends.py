"""Where a golden set can be asked: URLs, deployments by name, the batch runners, plain MLflow."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO
from urllib.parse import urlsplit

from likewise import api, deployments
from likewise.batch import ScoreOptions, runners
from likewise.batch.formats import PREDICTIONS
from likewise.batch.values import as_json
from likewise.bundles.open import is_bundle
from likewise.core.engine import predict_items
from likewise.core.errors import ModelFailed, TargetUnavailable, WrongUsage
from likewise.core.extras import need
from likewise.core.results import Failed
from likewise.parity.client import Post, by_request, in_rows
from likewise.parity.compare import RefusedRow
from likewise.parity.golden import Golden
from likewise.parity.verify_options import VerifyOptions
from likewise.server.auth import authorization
from likewise.targets.base import Answer
from likewise.wire import Form, decode, encode

MLFLOW = "mlflow"
ROW = "likewise_row"


def here(golden: Golden, bundle: api.Bundle) -> tuple[str, list[object]]:
    """Of the bundle's own engine, in this process: its label, and its answers."""
    with closing(bundle.engine()) as engine:
        call = decode(golden.body(0, len(golden)), None, bundle.signature)
        results = predict_items(engine, call.items(engine.spec.row_wise))
        values = [RefusedRow(r.error.code) if isinstance(r, Failed) else _plain(r.value) for r in results]
        by_row = call.by_row(engine.spec.row_wise)
        return engine.spec.label, values if by_row else in_rows(values[0], len(golden))


def there(
    where: str, golden: Golden, bundle: api.Bundle, model: str, options: VerifyOptions
) -> tuple[str | None, list[object]]:
    """Of the place `where`: the digest of the bundle that it serves, where it says so, and its answers.

    NotDeployed for a name that nothing has, and what the place raises.
    """
    if where in runners.names():
        return bundle.digest, _scored(where, golden, bundle)
    row_wise = bundle.manifest.row_wise
    if where == MLFLOW:
        with _plain_mlflow(bundle, model) as ask:
            return None, by_request(golden, ask, where, row_wise)
    if where.startswith(("http://", "https://")):
        address = _Address(where, options)
        found = by_request(golden, address.post, where, row_wise)
        return address.bundle, found
    name, _, target = where.partition("@")
    receipt, ask = deployments.asker(name, to=target or None)
    return receipt.model.digest, by_request(golden, ask, where, row_wise)


def _plain(value: object) -> object:
    """As it is when it has been JSON."""
    return json.loads(encode(Form.DOCUMENT, value))


# --- over HTTP -------------------------------------------------------------------------------------------------------


class _Address:
    """A URL; with a path it is asked as it is: deployments on Ray answer at their route.

    bundle: as its last answer says.
    """

    def __init__(self, url: str, options: VerifyOptions) -> None:
        self._url = url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/invocations"
        self._headers = {"Content-Type": deployments.JSON, **authorization(options.token_file)}
        self._timeout_s = options.timeout_s
        self.bundle: str | None = None

    def post(self, body: bytes) -> Answer:
        """TargetUnavailable where nothing comes back."""
        request = urllib.request.Request(self._url, body, self._headers)  # noqa: S310  `there` has seen its scheme
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:  # noqa: S310
                self.bundle = answer.headers.get("X-Likewise-Bundle")
                return Answer(answer.status, deployments.JSON, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, deployments.JSON, error.read())
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: an address that is none
            raise TargetUnavailable(
                f"{self._url} gave no answer: {error}", remedy="see that it runs, and its address"
            ) from error


# --- batch jobs ------------------------------------------------------------------------------------------------------


def _scored(runner: str, golden: Golden, bundle: api.Bundle) -> list[object]:
    """What a job writes; a quarantined row is refused."""
    columns = golden.table.columns
    if golden.params or not bundle.signature.inputs:
        what = "has params" if golden.params else "is of a model without a signature"
        raise WrongUsage(f"{golden.source} {what}, which no batch job takes", remedy=f"leave out --against {runner}")
    with TemporaryDirectory(prefix="likewise-verify-") as folder:
        source, output = Path(folder, "golden.jsonl"), Path(folder, "scored.jsonl")
        with source.open("w", encoding="utf-8") as stream:
            for number, row in enumerate(golden.table.rows):
                record = dict(zip(columns or ("input",), row, strict=True))
                stream.write(as_json({ROW: number, **record}) + "\n")
        mapping = {} if columns else {"input": "input"}  # the one column beside ours
        api.score(bundle, source, output, options=ScoreOptions(runner=runner, column=mapping))
        with output.open(encoding="utf-8") as stream:
            said = {record[ROW]: record[PREDICTIONS] for record in map(json.loads, stream)}
    return [said.get(number, RefusedRow("QUARANTINED")) for number in range(len(golden))]


# --- plain MLflow ----------------------------------------------------------------------------------------------------


@contextmanager
def _plain_mlflow(bundle: api.Bundle, model: str) -> Iterator[Post]:
    """A process that loads the model as MLflow does: by its URI, or the copy in the bundle.  CodeNotTrusted."""
    need("mlflow", extra="mlflow")
    bundle.trust.require(uri=str(bundle.path.resolve()), digest=bundle.digest)
    uri = str(bundle.model_path) if is_bundle(Path(model)) else model
    with TemporaryFile() as log:
        command = [sys.executable, "-m", "likewise.parity.mlflow_process", uri]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process:
            try:
                yield partial(_say, process, log)
            finally:
                process.kill()


def _say(process: subprocess.Popen[bytes], log: IO[bytes], body: bytes) -> Answer:
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(body + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = b""
    if not line:
        raise ModelFailed(f"plain MLflow could not load it: {_last_words(log)}", remedy="mend it where MLflow runs it")
    status, text = json.loads(line)
    return Answer(status, deployments.JSON, str(text).encode())


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
