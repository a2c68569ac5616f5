"""Compared with `mlflow models serve` on the same model: equal bodies get equal predictions."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from tests.support.models import save_code, seal
from tests.support.processes import LIKEWISE, free_port, running

BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}  # MLflow starts `uvicorn` by its name

COLUMNS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [7, 3, 6, 2]]
RECORDS = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
CSV = "\n".join([",".join(COLUMNS), *(",".join(map(str, row)) for row in ROWS)])

SAME: dict[str, tuple[object, str]] = {
    "split": ({"dataframe_split": {"columns": COLUMNS, "data": ROWS}}, "application/json"),
    "split with index": (
        {"dataframe_split": {"columns": COLUMNS, "index": [7, 8, 9], "data": ROWS}},
        "application/json",
    ),
    "split reordered": (
        {"dataframe_split": {"columns": COLUMNS[::-1], "data": [row[::-1] for row in ROWS]}},
        "application/json; charset=utf-8",
    ),
    "records": ({"dataframe_records": RECORDS}, "application/json"),
    "records with more": ({"dataframe_records": [{**r, "more": "x"} for r in RECORDS]}, "application/json"),
    "records of text": (
        {"dataframe_records": [{k: str(v) for k, v in r.items()} for r in RECORDS]},
        "application/json",
    ),
    "inputs by column": (
        {"inputs": {name: [row[i] for row in ROWS] for i, name in enumerate(COLUMNS)}},
        "application/json",
    ),
    "inputs by record": ({"inputs": RECORDS}, "application/json"),
    "instances": ({"instances": RECORDS, "signature_name": "serving"}, "application/json"),
    "params that nobody takes": ({"inputs": RECORDS, "params": {"x": 1}}, "application/json"),
    "csv": (CSV, "text/csv"),
}
REFUSED: dict[str, object] = {
    "no form": {"rows": ROWS},
    "two forms": {"inputs": RECORDS, "instances": RECORDS},
    "a column missing": {"dataframe_split": {"columns": COLUMNS[1:], "data": [row[1:] for row in ROWS]}},
    "rows without names": {"inputs": ROWS},
    "no rows, no names": {"dataframe_records": []},
    "text for a number": {"dataframe_records": [{**RECORDS[0], COLUMNS[0]: "tall"}]},
    "no JSON": '{"inputs": ',
}


CODE = """
import mlflow

class Sums(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [round(sum(row)) for row in model_input.to_numpy().tolist()]

mlflow.models.set_model(Sums())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a model with four columns of numbers."""
    folder = tmp_path_factory.mktemp("http") / "bundle"
    columns = Schema([ColSpec("double", name) for name in COLUMNS])
    save_code(folder / "model", CODE, signature=ModelSignature(columns, Schema([ColSpec("long")])))
    seal(folder)
    return folder


@pytest.fixture(scope="module")
def mlflow_url(folder: Path) -> Iterator[str]:
    port = free_port()
    command = [BIN / "mlflow", "models", "serve", "-m", folder / "model", "-p", str(port), "--env-manager", "local"]
    with running(command, folder.with_name("mlflow.log"), env=ENVIRONMENT, group=True, pipe=False) as process:
        process.wait_for_response(f"http://127.0.0.1:{port}/ping")
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def our_url(folder: Path) -> Iterator[str]:
    command = [*LIKEWISE, "serve", folder, "-p", "0", "--trust", "--json"]
    with running(command, folder.with_name("likewise.log")) as process:
        yield process.document()["url"]


def post(url: str, body: object, content_type: str = "application/json") -> httpx.Response:
    content = body if isinstance(body, str) else json.dumps(body)
    return httpx.post(f"{url}/invocations", content=content, headers={"Content-Type": content_type}, timeout=60)


@pytest.mark.parametrize("case", SAME)
def test_the_same_body_gets_the_same_predictions(case: str, mlflow_url: str, our_url: str) -> None:
    theirs, ours = (post(url, *SAME[case]) for url in (mlflow_url, our_url))
    assert theirs.status_code == 200, theirs.text
    assert ours.status_code == 200, ours.text
    assert ours.json() == theirs.json()
    assert len(ours.json()["predictions"]) == len(ROWS)
    assert ours.headers["content-type"] == theirs.headers["content-type"]


@pytest.mark.parametrize("case", REFUSED)
def test_the_same_body_is_refused(case: str, mlflow_url: str, our_url: str) -> None:
    theirs, ours = (post(url, REFUSED[case]) for url in (mlflow_url, our_url))
    assert 400 <= theirs.status_code < 500, theirs.text
    assert ours.status_code == 400, ours.text
    assert ours.json().keys() >= {"error_code", "message"} == theirs.json().keys() & {"error_code", "message"}


def test_the_small_routes_are_alike(mlflow_url: str, our_url: str) -> None:
    for path in ("/ping", "/health", "/version"):
        theirs, ours = (httpx.get(url + path) for url in (mlflow_url, our_url))
        assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text) == (200, theirs.text)
        assert ours.headers["content-type"] == theirs.headers["content-type"]


def test_what_the_book_sends_is_answered_where_mlflow_now_refuses(mlflow_url: str, our_url: str) -> None:
    split = {"columns": COLUMNS, "data": ROWS}
    for content_type in ("application/json", "application/json; format=pandas-split"):
        assert post(mlflow_url, split, content_type).status_code in (400, 415)
        bare = post(our_url, split, content_type).json()
        assert bare == post(our_url, {"dataframe_split": split}).json()["predictions"]
