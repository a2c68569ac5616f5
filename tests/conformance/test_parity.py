"""One pipeline, every interface: the answers are the same strings, URIs in the metadata included.

300 rows for every interface; long tests take 2,000, and 10,000 short ones for the local runner, Spark and HTTP.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from tests.support.sentiment_store import Store, environment, run
from tests.support.spark.cluster import java_env

import likewise
from likewise.demo.data import reviews, write_rows

pytest_plugins = ("tests.support.spark.fixtures",)

SIZES = [300, pytest.param(2000, marks=pytest.mark.long)]  # rows; foreign languages and repeated texts among them
MANY = 10_000
SHORT = 80  # characters
REQUEST = 400  # rows
ON_SPARK = ["--runner", "spark", "--master", "local[2]", "--conf", "spark.ui.enabled=false"]
READY_S = 90
Score = Callable[..., None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module", params=SIZES)
def source(request: pytest.FixtureRequest, folder: Path) -> Path:
    """The rows as a CSV, in a separate folder."""
    path = folder / str(request.param) / "in.csv"
    path.parent.mkdir()
    write_rows(path, request.param)
    return path


@pytest.fixture(scope="module")
def rows(source: Path) -> pd.DataFrame:
    return pd.read_csv(source, keep_default_na=False)


@pytest.fixture(scope="module")
def expected(store: Store, source: Path, rows: pd.DataFrame) -> list[str]:
    """What plain MLflow answers, in a process that knows nothing else."""
    script = (
        "import json, sys, mlflow.pyfunc, pandas as pd\n"
        "frame = pd.read_csv(sys.argv[2], keep_default_na=False)[['text']]\n"
        "json.dump(list(mlflow.pyfunc.load_model(sys.argv[1]).predict(frame)['text']), open(sys.argv[3], 'w'))\n"
    )
    output = source.with_name("expected.json")
    run([sys.executable, "-c", script, store.uri, str(source), str(output)], source.parent, store.env)
    predictions: list[str] = json.loads(output.read_text())
    assert len(predictions) == len(rows)
    return predictions


@pytest.fixture(scope="module")
def likewise_command(store: Store) -> list[str]:
    """`likewise` in a process that does not see the store, where this machine lets a process not see a folder."""
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    hidden = [*namespace, "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(store.folder)]
    able = shutil.which("unshare") and subprocess.run([*hidden, "true"], capture_output=True).returncode == 0
    return [*(hidden if able else []), sys.executable, "-m", "likewise.cli"]


@pytest.fixture(scope="module")
def bundle(store: Store, folder: Path) -> Path:
    """Away from the store, which is hidden."""
    return shutil.copytree(store.bundle, folder / "bundle")


@pytest.fixture(scope="module")
def url(bundle: Path, folder: Path, likewise_command: list[str]) -> Iterator[str]:
    argv = [*likewise_command, "serve", str(bundle), "-p", "0", "--json"]
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
    with likewise.open_bundle(bundle) as opened:
        assert list(opened.predict(rows[["text"]])["text"]) == expected


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "csv": lambda path: pd.read_csv(path, keep_default_na=False),
    "jsonl": lambda path: pd.read_json(path, lines=True),
    "parquet": pd.read_parquet,
}
WRITERS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "csv": lambda rows, path: rows.to_csv(path, index=False),
    "jsonl": lambda rows, path: rows.to_json(path, orient="records", lines=True),
    "parquet": lambda rows, path: rows.to_parquet(path, index=False),
}


@pytest.fixture(scope="module")
def score(bundle: Path, likewise_command: list[str]) -> Score:
    """Runs `likewise score INPUT -o OUTPUT OPTIONS`."""

    def run_job(source: Path, output: Path, *options: str) -> None:
        command = [*likewise_command, "score", str(bundle), str(source), "-o", str(output), *options]
        run(command, output.parent, environment() | java_env(output.parent))

    return run_job


@pytest.mark.parametrize("suffix", READERS)
def test_score(score: Score, source: Path, rows: pd.DataFrame, expected: list[str], suffix: str) -> None:
    given, output = source.with_name(f"given.{suffix}"), source.with_name(f"scored.{suffix}")
    WRITERS[suffix](rows, given)
    score(given, output)
    assert check(output, rows, expected)["duplicates"] > 0


@pytest.mark.usefixtures("java")
def test_score_on_spark(score: Score, source: Path, rows: pd.DataFrame, expected: list[str]) -> None:
    output = source.with_name("on-spark.csv")
    score(source, output, *ON_SPARK)
    check(output, rows, expected)


def check(output: Path, rows: pd.DataFrame, expected: list[str]) -> dict[str, Any]:
    """A job's report; its output has every row, each with what MLflow answers, in the input's order."""
    scored = READERS[output.suffix[1:]](output)
    assert list(scored["row"]) == list(rows["row"])
    assert list(scored["predictions"]) == expected
    report: dict[str, Any] = json.loads(output.with_name(f"{output.name}.likewise.json").read_text())
    assert (report["rows_in"], report["rows_ok"], report["rows_quarantined"]) == (len(rows), len(rows), 0)
    return report


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
        for start in range(0, len(texts), 500):
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
def scored_locally(score: Score, folder: Path, many: list[str]) -> list[str]:
    return score_many(score, folder, "local")


def score_many(score: Score, folder: Path, name: str, *options: str) -> list[str]:
    """The predictions of `likewise score` for the file of many rows, in the rows' order."""
    output = folder / f"many-{name}.jsonl"
    score(folder / "many.jsonl", output, *options)
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [record["row"] for record in records] == list(range(MANY))
    return [record["predictions"] for record in records]


@pytest.mark.long
@pytest.mark.usefixtures("java")
def test_many_rows_on_spark(score: Score, folder: Path, scored_locally: list[str]) -> None:
    assert score_many(score, folder, "spark", *ON_SPARK) == scored_locally


@pytest.mark.long
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
