"""The chapter's pipeline, trained, logged and registered with its commands, in plain MLflow and in Likewise."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pandas as pd
import pytest
from tests.support.cli import call
from tests.support.processes import free_port, run, running
from tests.support.sentiment_store import TEXTS, Store, environment

from likewise.bundles.open import open_bundle, write_manifest
from likewise.core.items import Row
from likewise.demo.__main__ import app
from likewise.demo.data import reviews, split
from likewise.pipeline.engine import PipelineEngine

EXAMPLES = Path(__file__).parents[2] / "examples" / "sentiment"


@pytest.fixture(scope="module")
def model(store: Store) -> Iterator[Any]:
    """The model, loaded with plain MLflow from its `runs:/` URI."""
    mlflow.set_tracking_uri(store.tracking_uri)
    yield mlflow.pyfunc.load_model(store.uri)
    mlflow.set_tracking_uri(None)


def predict(model: Any, texts: list[str]) -> list[str]:
    answers: list[str] = model.predict(pd.DataFrame({"text": texts}))["text"].tolist()
    return answers


def run_of(uri: str) -> str:
    """The id in `runs:/ID/model`."""
    return uri.split("/")[1]


def test_fine_tuned_model_is_logged_with_metrics(store: Store, model: Any) -> None:
    logged = mlflow.get_run(run_of(store.model_uri))
    assert logged.data.metrics["held_out_accuracy"] == store.facts["accuracy"]
    assert logged.data.params["train_rows"] == "3840"
    assert logged.data.params["held_out_rows"] == "853"
    assert store.facts["registered"] == "models:/inference_pipeline_model/1"
    folder = Path(mlflow.artifacts.download_artifacts(store.model_uri))
    assert list(folder.rglob("*.safetensors"))
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pkl", ".pt", ".pth")]


def test_answer_has_exactly_the_books_format(store: Store, model: Any) -> None:
    [answer] = predict(model, ["This is the best movie we saw."])
    label = json.loads(answer)["response"]["prediction_label"][0]
    assert answer == (
        f'{{"response": {{"prediction_label": ["{label}"]}}, "metadata": {{"language_detected": "en"}}, '
        f'"model_metadata": {{"finetuned_model_uri": "runs:/{run_of(store.model_uri)}/model", '
        f'"inference_pipeline_model_uri": "runs:/{run_of(store.uri)}/inference_pipeline_model"}}}}'
    )
    assert label in ("positive", "negative")


def test_answers_do_not_depend_on_batch_or_order(model: Any) -> None:
    texts = TEXTS + [review.text for review in split(reviews()).held_out[:150]]
    together = dict(zip(texts, predict(model, texts), strict=True))
    assert predict(model, texts[::-1]) == [together[text] for text in texts[::-1]]
    assert [predict(model, [text])[0] for text in texts] == [together[text] for text in texts]
    labels = {json.loads(answer)["response"]["prediction_label"][0] for answer in together.values()}
    assert labels == {"negative", "positive"}


def test_index_is_preserved(model: Any) -> None:
    frame = pd.DataFrame({"text": ["a", "b"]}, index=[7, 3])
    assert model.predict(frame).index.tolist() == [7, 3]


@pytest.mark.parametrize(("value", "why"), [(None, "row 1: text is null"), (3, "row 1: text must be a string")])
def test_invalid_row_is_reported(model: Any, value: object, why: str) -> None:
    with pytest.raises(mlflow.MlflowException, match=why):
        model.predict(pd.DataFrame({"text": ["a", value]}))


def test_declaration_gives_the_models_answers(store: Store, model: Any) -> None:
    declared = model.metadata.metadata["likewise"]
    assert declared["row_wise"] is True
    assert declared["references"] == [store.model_uri]
    folder = Path(mlflow.artifacts.download_artifacts(store.model_uri))
    engine = PipelineEngine(declared["pipeline"], resolve={store.model_uri: folder}.__getitem__)
    texts = TEXTS + [review.text for review in split(reviews()).held_out]
    results = engine.run(engine.prepare([Row(("text",), (text,)) for text in texts]))  # type: ignore[arg-type]
    assert [result.value["text"] for result in results] == predict(model, texts)  # type: ignore[union-attr,index]


@pytest.mark.long
def test_verify_names_the_step_with_reversed_labels(store: Store, tmp_path: Path) -> None:
    """The compiled classifier's labels are reversed, under a valid seal."""
    bundle = shutil.copytree(store.bundle, tmp_path / "bundle")
    manifest = open_bundle(bundle).manifest
    [classifier] = bundle.rglob("classifier.json")
    document = json.loads(classifier.read_text())
    classifier.write_text(json.dumps(document | {"labels": document["labels"][::-1]}))
    write_manifest(bundle, manifest)
    golden = tmp_path / "golden.jsonl"
    golden.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    words = ["--against", "mlflow", "--golden", golden, "--engine", "openvino", "--trust", "--json"]
    good = call("verify", store.bundle, *words, env=store.env)
    assert good.returncode == 0, good.stderr[-3000:] + good.stdout
    done = call("verify", bundle, *words, env=store.env)
    assert done.returncode == 3, done.stderr[-3000:]
    [place] = json.loads(done.stdout)["places"]
    assert place["differ"] == len(TEXTS)
    first = place["first"][0]
    assert first["path"] == "text.response.prediction_label[0]"
    assert {first["here"], first["there"]} == {"positive", "negative"}
    assert first["step"] == f"Classify.label: {first['here']} ≠ {first['there']}"


@pytest.mark.long
def test_spark_udf_gives_the_same_answers(store: Store, model: Any, tmp_path: Path) -> None:
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    script = tmp_path / "score.py"
    script.write_text(f"""
import json, mlflow
from pyspark.sql import SparkSession
from pyspark.sql.types import StringType
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
frame = spark.createDataFrame([(text,) for text in {TEXTS!r}], "text string").repartition(2)
udf = mlflow.pyfunc.spark_udf(spark, model_uri={store.uri!r}, result_type=StringType(), env_manager="local")
rows = frame.withColumn("predictions", udf()).collect()
print(json.dumps([[row.text, row.predictions] for row in rows]))
spark.stop()
""")
    env = store.env | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = run([sys.executable, script], cwd=tmp_path, env=env)
    answers = json.loads(done.stdout.splitlines()[-1])
    assert sorted(map(tuple, answers)) == sorted(zip(TEXTS, predict(model, TEXTS), strict=True))


def test_mlflow_models_serve_gives_the_same_answers(store: Store, model: Any, tmp_path: Path) -> None:
    with served(Path(sys.executable), store, tmp_path) as url:
        assert request(url, TEXTS) == predict(model, TEXTS)
        refused = post(url, ["a", 3])
        assert refused.status_code == 400


@pytest.mark.long
def test_new_environment_without_likewise_gives_the_same_answers(store: Store, model: Any, tmp_path: Path) -> None:
    """In a new venv with only the model's requirements installed."""
    requirements = mlflow.artifacts.download_artifacts(f"{store.uri}/requirements.txt")
    python = tmp_path / "fresh" / "bin" / "python"
    run([sys.executable, "-m", "venv", tmp_path / "fresh"])
    run([python, "-m", "pip", "install", "-q", "--no-input", "-r", requirements])
    installed = run([python, "-m", "pip", "list", "--format=freeze"]).stdout
    assert "likewise" not in installed
    with served(python, store, tmp_path) as url:
        assert request(url, TEXTS) == predict(model, TEXTS)


def test_custom_pipeline_example(store: Store, model: Any, tmp_path: Path) -> None:
    script = shutil.copy(EXAMPLES / "custom_pipeline.py", tmp_path)
    uri = run([sys.executable, script, store.model_uri], cwd=tmp_path, env=store.env).stdout.splitlines()[-1]
    own = mlflow.pyfunc.load_model(uri)
    labels = [json.loads(answer)["response"]["prediction_label"] for answer in predict(own, TEXTS)]
    plain = [json.loads(answer)["response"]["prediction_label"] for answer in predict(model, TEXTS)]
    assert ["unsure"] in labels
    assert all(label in (["unsure"], other) for label, other in zip(labels, plain, strict=True))
    assert own.metadata.metadata["likewise"] == {"row_wise": True, "references": [store.model_uri]}


def test_the_chapters_mlflow_entry_points(store: Store, tmp_path: Path) -> None:
    mlflow_run = [sys.executable, "-m", "mlflow", "run", str(EXAMPLES), "--env-manager", "local", "-e"]
    env = store.env | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    log = [*mlflow_run, "inference_pipeline_model", "-P", f"finetuned_model_run_id={run_of(store.model_uri)}"]
    logged = run(log, cwd=tmp_path, env=env).stdout
    run_id = next(line for line in logged.splitlines() if line.startswith("run_id: ")).partition(": ")[2]
    register = ["register_model", "-P", f"mlflow_run_id={run_id}", "-P", "registered_model_name=by_project"]
    registered = run([*mlflow_run, *register], cwd=tmp_path, env=env).stdout
    assert "model_uri: models:/by_project/1" in registered


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["log-pipeline", "--finetuned-model-uri", "runs:/0123456789abcdef0123456789abcdef/model"], "MODEL_NOT_FOUND"),
        (["register", "--model-uri", "runs:/0123456789abcdef0123456789abcdef/model"], "MODEL_NOT_FOUND"),
        (["fine-tune", "--backbone", "no/such-backbone"], "MODEL_NOT_FOUND"),
    ],
)
def test_missing_model_is_reported(tmp_path: Path, arguments: list[str], code: str) -> None:
    try:
        done = call(*arguments, cwd=tmp_path, env=environment(), program=app)
    finally:
        mlflow.set_tracking_uri(None)
    assert done.returncode == 1
    assert code in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# --- MLflow's own server ----------------------------------------------------------------------------------------------


@contextmanager
def served(python: Path, store: Store, folder: Path) -> Iterator[str]:
    """`mlflow models serve` in the environment of `python`, ready to serve."""
    port = free_port()
    command = [python, "-m", "mlflow", "models", "serve", "-m", store.uri, "--env-manager", "local", "-p", str(port)]
    env = store.env | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    with running(command, folder / "serve.log", env=env, cwd=folder, group=True, pipe=False) as process:
        process.wait_for_response(f"http://127.0.0.1:{port}/ping")
        yield f"http://127.0.0.1:{port}/invocations"


def post(url: str, texts: list[object]) -> httpx.Response:
    body = {"dataframe_split": {"columns": ["text"], "data": [[text] for text in texts]}}
    return httpx.post(url, json=body, timeout=60)


def request(url: str, texts: list[str]) -> list[str]:
    response = post(url, list(texts))
    assert response.status_code == 200, response.text
    return [row["text"] for row in response.json()["predictions"]]
