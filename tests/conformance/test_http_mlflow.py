"""Beside `mlflow models serve`, on the same model: the same bodies get the same predictions."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

PATIENCE = 120  # seconds until a server has to be ready
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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A logistic regression on iris, as MLflow saves it."""
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    iris = load_iris(as_frame=True)
    fitted = LogisticRegression(max_iter=500).fit(iris.data, iris.target)
    path = tmp_path_factory.mktemp("iris") / "model"
    signature = infer_signature(iris.data, fitted.predict(iris.data))
    mlflow.sklearn.save_model(fitted, path, signature=signature, input_example=iris.data.head(2))
    return path


@contextmanager
def process(argv: list[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """In a session of its own, so that what it starts ends with it; what it logs stands in `log`."""
    with log.open("w") as stream:
        running = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=stream, text=True, start_new_session=True, env=ENVIRONMENT
        )
        try:
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    running.wait(30)
                os.killpg(running.pid, signal.SIGKILL)
            running.communicate()


def await_ready(url: str, running: "subprocess.Popen[str]", log: Path) -> str:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and running.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return url.rpartition("/")[0]
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} did not become ready: {log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def mlflow_url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("mlflow") / "log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [str(BIN / "mlflow"), "models", "serve", "-m", str(model), "-p", str(port), "--env-manager", "local"]
    with process(argv, log) as running:
        yield await_ready(f"http://127.0.0.1:{port}/ping", running, log)


@pytest.fixture(scope="module")
def our_url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("likewise")
    likewise = [sys.executable, "-m", "likewise.cli"]
    bundle = folder / "bundle"
    subprocess.run([*likewise, "bundle", str(model), "-o", str(bundle), "--trust"], check=True, capture_output=True)
    log = folder / "log"
    with process([*likewise, "serve", str(bundle), "-p", "0", "--trust", "--json"], log) as running:
        url = first_json(running)["url"]
        yield await_ready(f"{url}/ready", running, log)


def first_json(running: "subprocess.Popen[str]") -> Any:
    assert running.stdout is not None
    text = ""
    for line in running.stdout:
        text += line
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            continue
    raise AssertionError(f"no JSON document: {text}")


def post(url: str, body: object, content_type: str = "application/json") -> httpx.Response:
    content = body if isinstance(body, str) else json.dumps(body)
    return httpx.post(f"{url}/invocations", content=content, headers={"Content-Type": content_type}, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("case", SAME)
def test_the_same_body_gets_the_same_predictions(case: str, mlflow_url: str, our_url: str) -> None:
    theirs, ours = (post(url, *SAME[case]) for url in (mlflow_url, our_url))
    assert theirs.status_code == 200, theirs.text
    assert ours.status_code == 200, ours.text
    assert ours.json() == theirs.json()
    assert len(ours.json()["predictions"]) == len(ROWS)
    assert ours.headers["content-type"] == theirs.headers["content-type"]


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_the_same_body_is_refused(case: str, mlflow_url: str, our_url: str) -> None:
    theirs, ours = (post(url, REFUSED[case]) for url in (mlflow_url, our_url))
    assert 400 <= theirs.status_code < 500, theirs.text
    assert ours.status_code == 400, ours.text
    assert ours.json().keys() >= {"error_code", "message"} == theirs.json().keys() & {"error_code", "message"}


@pytest.mark.slow
def test_the_small_routes_are_alike(mlflow_url: str, our_url: str) -> None:
    for path in ("/ping", "/health", "/version"):
        theirs, ours = (httpx.get(url + path) for url in (mlflow_url, our_url))
        assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text) == (200, theirs.text)
        assert ours.headers["content-type"] == theirs.headers["content-type"]


@pytest.mark.slow
def test_what_the_book_sends_is_answered_where_mlflow_now_refuses(mlflow_url: str, our_url: str) -> None:
    split = {"columns": COLUMNS, "data": ROWS}
    for content_type in ("application/json", "application/json; format=pandas-split"):
        assert post(mlflow_url, split, content_type).status_code in (400, 415)
        bare = post(our_url, split, content_type).json()
        assert bare == post(our_url, {"dataframe_split": split}).json()["predictions"]
