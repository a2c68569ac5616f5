"""One pipeline, every way to ask: the answers are the same strings, URIs in the metadata included.

2,000 rows for every form of asking, 10,000 short ones for the local runner, Spark and HTTP.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from tests.support.sentiment_store import Store, run

import likewise
from likewise.demo.data import reviews
from likewise.demo.rows import write_rows

pytestmark = pytest.mark.slow

ROWS = 2000
MANY = 10_000
SHORT = 80  # characters
REQUEST = 400  # rows
READY_S = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    write_rows(folder / "rows.csv", ROWS)
    return pd.read_csv(folder / "rows.csv", keep_default_na=False)


@pytest.fixture(scope="module")
def expected(store: Store, rows: pd.DataFrame, folder: Path) -> list[str]:
    """What plain MLflow answers, in a process that knows nothing else."""
    script = (
        "import json, sys, mlflow.pyfunc, pandas as pd\n"
        "frame = pd.read_csv(sys.argv[2], keep_default_na=False)[['text']]\n"
        "json.dump(list(mlflow.pyfunc.load_model(sys.argv[1]).predict(frame)['text']), open(sys.argv[3], 'w'))\n"
    )
    said = folder / "expected.json"
    run([sys.executable, "-c", script, store.uri, str(folder / "rows.csv"), str(said)], folder, store.env)
    answers: list[str] = json.loads(said.read_text())
    assert len(answers) == len(rows)
    return answers


@pytest.fixture(scope="module")
def bundle(store: Store, folder: Path) -> Iterator[Path]:
    """The bundle, with the store out of the way from here on."""
    path = folder / "bundle"
    run([sys.executable, "-m", "likewise.cli", "bundle", store.uri, "-o", str(path)], folder, store.env)
    away = store.folder.with_name("sentiment-away")
    store.folder.rename(away)
    yield path
    away.rename(store.folder)


@pytest.fixture(scope="module")
def url(bundle: Path, folder: Path) -> Iterator[str]:
    argv = [sys.executable, "-m", "likewise.cli", "serve", str(bundle), "-p", "0", "--json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    with (folder / "serve.log").open("w") as log:
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=folder)
    try:
        assert server.stdout is not None
        document = "".join(iter(server.stdout.readline, "}\n")) + "}"
        address = str(json.loads(document)["url"])
        transport = httpx.HTTPTransport(retries=3)
        with httpx.Client(base_url=address, transport=transport, timeout=READY_S) as client:
            while client.get("/ready").status_code != 200:
                assert server.poll() is None, (folder / "serve.log").read_text()
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def test_the_answers_name_both_models(store: Store, expected: list[str]) -> None:
    assert json.loads(expected[0])["model_metadata"] == {
        "finetuned_model_uri": store.model_uri,
        "inference_pipeline_model_uri": store.uri,
    }
    assert {json.loads(answer)["response"]["prediction_label"][0] for answer in expected} == {"negative", "positive"}
    assert {"en", "fr", "de", "es", "zh"} <= {json.loads(a)["metadata"]["language_detected"] for a in expected}


def test_the_bundle_from_python(bundle: Path, rows: pd.DataFrame, expected: list[str]) -> None:
    opened = likewise.open_bundle(bundle)
    assert list(opened.predict(rows[["text"]])["text"]) == expected


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_score(bundle: Path, folder: Path, rows: pd.DataFrame, expected: list[str], suffix: str) -> None:
    source, output = folder / f"in.{suffix}", folder / f"scored.{suffix}"
    write: dict[str, Callable[[Path], Any]] = {
        "csv": lambda path: rows.to_csv(path, index=False),
        "jsonl": lambda path: rows.to_json(path, orient="records", lines=True),
        "parquet": lambda path: rows.to_parquet(path, index=False),
    }
    write[suffix](source)
    run([sys.executable, "-m", "likewise.cli", "score", str(bundle), str(source), "-o", str(output)], folder)
    read: dict[str, Callable[[Path], pd.DataFrame]] = {
        "csv": lambda path: pd.read_csv(path, keep_default_na=False),
        "jsonl": lambda path: pd.read_json(path, lines=True),
        "parquet": pd.read_parquet,
    }
    scored = read[suffix](output)
    assert list(scored["row"]) == list(rows["row"])
    assert list(scored["predictions"]) == expected
    report = json.loads((folder / f"scored.{suffix}.likewise.json").read_text())
    assert (report["rows_in"], report["rows_ok"], report["rows_quarantined"]) == (ROWS, ROWS, 0)
    assert report["duplicates"] > 0


def _csv(texts: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows([["text"], *([t] for t in texts)])
    return out.getvalue()


def _split(texts: Sequence[str]) -> dict[str, object]:
    return {"columns": ["text"], "data": [[t] for t in texts]}


def _records(texts: Sequence[str]) -> list[dict[str, str]]:
    return [{"text": t} for t in texts]


JSON = "application/json"
FORMS: dict[str, tuple[str, Callable[[Sequence[str]], str], bool]] = {
    "dataframe_split": (JSON, lambda t: json.dumps({"dataframe_split": _split(t)}), True),
    "dataframe_records": (JSON, lambda t: json.dumps({"dataframe_records": _records(t)}), True),
    "inputs": (JSON, lambda t: json.dumps({"inputs": {"text": list(t)}}), True),
    "instances": (JSON, lambda t: json.dumps({"instances": _records(t)}), True),
    "csv": ("text/csv", _csv, True),
    "the book's": (JSON, lambda t: json.dumps(_split(t)), False),
    "the book's to SageMaker": (f"{JSON}; format=pandas-split", lambda t: json.dumps(_split(t)), False),
    "pandas-records": (f"{JSON}; format=pandas-records", lambda t: json.dumps(_records(t)), False),
    "bare records": (JSON, lambda t: json.dumps(_records(t)), False),
    "a string of JSON": (JSON, lambda t: json.dumps(json.dumps(_split(t))), False),
}


@pytest.mark.parametrize("form", FORMS)
def test_http(url: str, rows: pd.DataFrame, expected: list[str], form: str) -> None:
    content_type, body, wrapped = FORMS[form]
    texts, answers = list(rows["text"]), []
    with httpx.Client(base_url=url, timeout=120) as client:
        for start in range(0, ROWS, 500):
            answer = client.post(
                "/invocations", content=body(texts[start : start + 500]), headers={"Content-Type": content_type}
            )
            assert answer.status_code == 200, answer.text
            document = answer.json()
            assert isinstance(document, dict) is wrapped
            answers += [record["text"] for record in (document["predictions"] if wrapped else document)]
    assert answers == expected
    assert answer.headers["X-Likewise-Bundle"].startswith("sha256:")
    assert answer.headers["X-Likewise-Engine"].startswith("openvino/")


@pytest.fixture(scope="module")
def many(folder: Path) -> list[str]:
    """The first words of as many reviews, in a file."""
    texts = [review.text[:SHORT] for review in reviews("imdb")[: 2 * MANY : 2]]
    with (folder / "many.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"row": row, "text": text}) + "\n" for row, text in enumerate(texts))
    assert len(set(texts)) > MANY * 0.9
    return texts


@pytest.fixture(scope="module")
def scored_locally(bundle: Path, folder: Path, many: list[str]) -> list[str]:
    return score_many(bundle, folder, "local")


def score_many(bundle: Path, folder: Path, runner: str, *options: str) -> list[str]:
    """The predictions of `likewise score` for the file of many rows, in the rows' order."""
    output = folder / f"many-{runner}.jsonl"
    command = [sys.executable, "-m", "likewise.cli", "score", str(bundle), str(folder / "many.jsonl"), "-o"]
    run([*command, str(output), "--runner", runner, *options], folder)
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [record["row"] for record in records] == list(range(MANY))
    return [record["predictions"] for record in records]


def test_many_rows_on_spark(bundle: Path, folder: Path, scored_locally: list[str]) -> None:
    options = ["--master", "local[2]", "--conf", "spark.ui.enabled=false"]
    assert score_many(bundle, folder, "spark", *options) == scored_locally


def test_many_rows_over_http(url: str, many: list[str], scored_locally: list[str]) -> None:
    labels = {json.loads(answer)["response"]["prediction_label"][0] for answer in scored_locally}
    assert labels == {"negative", "positive"}
    answers = []
    with httpx.Client(base_url=url, timeout=120) as client:
        for start in range(0, MANY, REQUEST):
            answer = client.post("/invocations", json={"inputs": {"text": many[start : start + REQUEST]}})
            assert answer.status_code == 200, answer.text
            answers += [record["text"] for record in answer.json()["predictions"]]
    assert answers == scored_locally
