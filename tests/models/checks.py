"""What each interface answers for a model of the zoo, next to `mlflow.pyfunc.load_model(uri).predict`."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
from tests.models.logged import Logged
from tests.support.processes import LIKEWISE, free_port, running

import likewise
from likewise import api
from likewise.batch import ScoreOptions
from likewise.batch.formats import PREDICTIONS
from likewise.builder.equality import values_match
from likewise.core.errors import CodeNotTrusted, LikewiseError
from likewise.engine.engine_options import CompileOptions
from likewise.engine.plain_values import per_row, plain
from likewise.engine.pyfunc import takes_documents
from likewise.engine.versions import mlmodel_of
from likewise.parity.verify_options import VerifyOptions
from likewise.wire import Form, encode

EXACT = CompileOptions(precision="fp32", measure=False)  # with `load_model`'s numbers, and the same engine each time


def prepare(folder: Path, logged: Logged) -> dict[str, Any]:
    """Build the bundle of a model and predict its rows with plain MLflow; returns what `Model` reads."""
    folder.mkdir()
    expected = plain(mlflow.pyfunc.load_model(logged.uri).predict(logged.data, params=logged.params))
    (folder / "data.pickle").write_bytes(pickle.dumps((logged.data, logged.params, expected)))
    trust = False
    try:
        likewise.bundle(logged.uri, folder / "bundle", compiling=EXACT)
    except CodeNotTrusted:
        trust = True
        likewise.bundle(logged.uri, folder / "bundle", trust=True, compiling=EXACT)
    return {"uri": logged.uri, "trust": trust}


@dataclass(frozen=True)
class Model:
    """A bundled model of the zoo.  trust: whether it could not be bundled without."""

    folder: Path
    uri: str
    trust: bool

    @cached_property
    def loaded(self) -> tuple[Any, dict[str, Any] | None, Any]:
        data, params, expected = pickle.loads((self.folder / "data.pickle").read_bytes())  # noqa: S301
        return data, params, expected

    @property
    def data(self) -> Any:
        return self.loaded[0]

    @property
    def bundle(self) -> api.Bundle:
        return api.open_bundle(self.folder / "bundle", trust=self.trust)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows as a table: a column of lists for an array of several dimensions."""
        data = self.data
        if isinstance(data, pd.DataFrame):
            return data.set_axis([str(name) for name in data.columns], axis="columns")
        if isinstance(data, np.ndarray):
            flat = data.reshape(len(data), -1)
            return pd.DataFrame(flat).add_prefix("x") if data.ndim < 3 else pd.DataFrame({"x": data.tolist()})
        if isinstance(data, dict) and all(isinstance(each, np.ndarray) for each in data.values()):
            return pd.DataFrame({name: list(each) for name, each in data.items()})
        records = data if isinstance(data, list) else [data]
        return pd.DataFrame(records if isinstance(records[0], dict) else {"input": records})

    @cached_property
    def expected(self) -> list[Any]:
        """One prediction for each row of `frame`."""
        try:
            return list(map(unwrapped, per_row(self.loaded[2], len(self.frame))))
        except LikewiseError:
            return [unwrapped(self.loaded[2])]

    def check(self, got: Sequence[Any]) -> None:
        """Assert that `got` are the expected predictions."""
        got = [unwrapped(each) for each in got]
        expected = json.loads(encode(Form.DOCUMENT, self.expected))
        assert values_match(got, expected), f"{got!r:.1000}\nexpected {expected!r:.1000}"

    def body(self) -> dict[str, Any]:
        """The body of a request, by the type of the rows."""
        data, params, _ = self.loaded
        rest = {"params": params} if params else {}
        if isinstance(data, pd.DataFrame):
            split = data.to_dict(orient="split")
            return {"dataframe_split": {"columns": split["columns"], "data": split["data"]}} | rest
        if isinstance(data, dict) and ({"messages", "input"} & set(data)):
            return data | rest
        return {"inputs": plain(data)} | rest


def unwrapped(value: Any) -> Any:
    """The value of a record with one column, which jobs write without its name."""
    return next(iter(value.values())) if isinstance(value, Mapping) and len(value) == 1 else value


# --- interfaces: each raises AssertionError if an answer differs, or a LikewiseError ---------------------------------


def engine(model: Model) -> tuple[str, str]:
    """The label of the engine that is selected, and whether rows of several callers are merged."""
    opened = model.bundle.engine()
    try:
        return opened.spec.label, "yes" if opened.spec.row_wise else "no"
    finally:
        opened.close()


@contextmanager
def served(model: Model) -> Iterator[str]:
    """The URL of `likewise serve`."""
    port = free_port()
    flags = ["--trust"] if model.trust else []
    command = [*LIKEWISE, "serve", str(model.folder / "bundle"), "-p", str(port), *flags]
    with running(command, model.folder / "serve.log") as process:
        process.wait_for_response(f"http://127.0.0.1:{port}/ready")
        yield f"http://127.0.0.1:{port}"


def serve(model: Model, url: str) -> None:
    """The answer of `likewise serve` over HTTP."""
    response = httpx.post(f"{url}/invocations", json=model.body(), timeout=60)
    assert response.status_code == 200, response.text
    document = response.json()
    predictions = document["predictions"] if set(document) == {"predictions"} else document
    try:
        model.check(per_row(predictions, len(model.frame)))
    except LikewiseError:
        model.check([predictions])


def score_csv(model: Model) -> None:
    """The predictions of a job over a CSV file."""
    cells = model.frame.map(lambda cell: json.dumps(plain(cell)) if isinstance(plain(cell), list | dict) else cell)
    cells.to_csv(model.folder / "rows.csv", index=False)
    _score(model, "csv")


def score_parquet(model: Model) -> None:
    """The predictions of a job over a Parquet file."""
    model.frame.to_parquet(model.folder / "rows.parquet", index=False)
    _score(model, "parquet")


def _score(model: Model, form: str) -> None:
    output = model.folder / f"{form}.jsonl"
    report = likewise.score(model.bundle, model.folder / f"rows.{form}", output, options=ScoreOptions(restart=True))
    if report.rows_quarantined:
        [first, *_] = pd.read_parquet(f"{output}.quarantine.parquet").to_dict(orient="records")
        raise LikewiseError(first["cause"], remedy=first["remedy"])
    model.check([json.loads(line)[PREDICTIONS] for line in output.read_text().splitlines()])


def verify(model: Model, url: str, *, by_example: bool = False) -> None:
    """The comparison with plain MLflow, jobs and a server, on the Parquet file or the model's example.

    A server that changes one value of each response must be found.
    """
    options = VerifyOptions(golden=None if by_example else str(model.folder / "rows.parquet"), seed=1)
    trusted = api.open_bundle(model.folder / "bundle", trust=True)  # plain MLflow runs the model's code
    jobs = [] if by_example else ["local"]
    with altering(url) as other:
        *fair, wrong = likewise.verify(trusted, against=["mlflow", url, *jobs, other], options=options).places
    for place in fair:
        assert (place.agrees, place.refused, place.missing, place.rows > 0) == (True, 0, 0, True), place
    assert (wrong.verdict, wrong.differ > 0) == ("differs", True), wrong


@contextmanager
def altering(url: str) -> Iterator[str]:
    """The URL of a server that returns the responses of another one with one value changed."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            answer = httpx.post(
                f"{url}/invocations", content=sent, headers={"Content-Type": "application/json"}, timeout=60
            )
            body = json.dumps(altered(answer.json())).encode() if answer.status_code == 200 else answer.content
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def altered(value: Any) -> Any:
    """The value with its last leaf changed, a number by more than the tolerance."""
    if isinstance(value, dict) and value:
        *rest, (name, member) = value.items()
        return dict([*rest, (name, altered(member))])
    if isinstance(value, list) and value:
        return [*value[:-1], altered(value[-1])]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 + abs(value)
    return f"{value} altered"


def spark(model: Model, session: Any) -> None:
    """The values of a UDF; a record is a struct, whose fields it has in another order perhaps."""
    from pyspark.sql.functions import struct

    import likewise.spark

    arrays = isinstance(model.data, np.ndarray)
    frame = session.createDataFrame(pd.DataFrame({"x": model.data.tolist()}) if arrays else model.frame)
    documents = takes_documents(mlmodel_of(model.bundle.model_path).get("metadata"))
    columns = [struct(*frame.columns)] if documents or len(frame.columns) > 1 else frame.columns
    kind = {"result_type": "variant"} if documents else {}  # their signatures lack parts of the response
    udf = likewise.spark.udf(session, model.bundle, params=model.loaded[1], **kind)
    answers = frame.select(udf(*columns).alias("y")).collect()
    got = [_value(each["y"]) for each in answers]
    model_expected = json.loads(encode(Form.DOCUMENT, model.expected))
    expected = [_like(one, each) for one, each in zip(got, model_expected, strict=True)]
    assert values_match(got, expected), f"{got!r:.1000}\nexpected {expected!r:.1000}"


def _value(value: Any) -> Any:
    if hasattr(value, "toJson"):  # a variant, for an output of any type
        return json.loads(value.toJson())
    return value.asDict(recursive=True) if hasattr(value, "asDict") else value


def _like(got: Any, expected: Any) -> Any:
    """`expected` as a UDF of the type that the signature has, or `double`, returns it."""
    if isinstance(expected, Mapping) and not isinstance(got, Mapping):  # the leftmost column of the type
        kind = (int, float) if isinstance(got, int | float) else type(got)
        return next(each for each in expected.values() if isinstance(each, kind))
    if isinstance(got, list) and not isinstance(expected, list):  # a tensor of one dimension
        return [expected]
    return expected[0] if isinstance(expected, list) and not isinstance(got, list) else expected


JOBS = {"score CSV": score_csv, "score Parquet": score_parquet}
