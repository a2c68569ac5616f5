"""Models of transformers and hand-written pyfuncs, bundled with compiled modules: `load_model`'s answers, faster."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.models import infer_signature
from tests.support.encoders import (
    FILMS,
    REVIEWS,
    balanced,
    classifier,
    network,
    save_pipeline,
    tokenizer,
)  # fmt: skip
from tests.support.models import save_code
from tests.support.processes import LIKEWISE, free_port, running
from tests.support.waiting import until

from likewise import api
from likewise.core.engine import counters, predict_items
from likewise.core.errors import EngineUnavailable
from likewise.core.items import Params, Request, Row, Table
from likewise.core.results import Failed, Ok
from likewise.engine.accelerate.agreement import Tolerance, distance
from likewise.engine.engine_options import CompileOptions
from likewise.engine.openvino_calls import has_bf16
from likewise.engine.plain_values import plain
from likewise.engine.pyfunc import PyfuncEngine

UNMEASURED = CompileOptions(measure=False)
ACCELERATE = CompileOptions(measure=False, accelerate=True)
TOLERANCE = Tolerance(0.02, 1e-3)
LABELS = pd.DataFrame({"label": ["positive"], "score": [0.9]})
TEXTS = REVIEWS["text"].tolist()
BF16 = ["bf16+fp32"] if has_bf16() else []

PIPELINE = """
    import mlflow, pandas as pd

    class Pipeline(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            {load}

        def predict(self, context, model_input, params=None):
            return pd.DataFrame({{"label": [self.label(text) for text in model_input["text"]]}})

        def label(self, text):
            {label}

    mlflow.models.set_model(Pipeline())
"""
OVER_TRANSFORMERS = {
    "load": 'self.model = mlflow.transformers.load_model(context.artifacts["model"])',
    "label": 'return self.model(text)[0]["label"]',
}
OVER_PYTORCH = {
    "load": """import transformers
            self.model = mlflow.pytorch.load_model(context.artifacts["model"])
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(context.artifacts["tokenizer"])""",
    "label": """import torch
            with torch.no_grad():
                logits = self.model(**self.tokenizer(text, return_tensors="pt")).logits
            return ["negative", "positive"][int(logits.argmax())]""",
}
WITH_GRADIENTS = {**OVER_PYTORCH, "label": OVER_PYTORCH["label"].replace("with torch.no_grad():", "if True:")}

Save = Callable[[Path], Path]


def pipeline(task: str, module: Any, data: Any, output: Any, **options: Any) -> Save:
    return lambda folder: save_pipeline(task, module(), folder, data, output, **options)


def sentences(folder: Path, *, dense: bool = False) -> Path:
    from sentence_transformers import SentenceTransformer, models

    parts = folder.with_name(f"{folder.name}-encoder")
    network("BertModel").save_pretrained(parts)
    tokenizer().save_pretrained(parts)
    words = models.Transformer(str(parts), max_seq_length=64)
    modules = [words, models.Pooling(32, "mean"), *([models.Dense(32, 16)] if dense else []), models.Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu", prompts={"query": "query: "})
    mlflow.sentence_transformers.save_model(model, folder, input_example=TEXTS, pip_requirements=["mlflow"])
    return folder


def entailing() -> Any:
    labels = {0: "contradiction", 1: "entailment"}
    return network("BertForSequenceClassification", num_labels=2, id2label=labels, label2id={"entailment": 1})


def pyfunc(parts: Mapping[str, str], **options: Any) -> Save:
    def save(folder: Path) -> Path:
        import transformers

        module = balanced(FILMS[:200])
        artifacts = folder.with_name(f"{folder.name}-artifacts")
        if parts is OVER_TRANSFORMERS:
            flavor = transformers.pipeline("text-classification", model=module, tokenizer=tokenizer())
            mlflow.transformers.save_model(flavor, artifacts / "model", pip_requirements=["mlflow"])
        else:
            mlflow.pytorch.save_model(
                module, artifacts / "model", pip_requirements=["mlflow"], serialization_format="pickle"
            )
        tokenizer().save_pretrained(artifacts / "tokenizer")
        output = pd.DataFrame({"label": ["positive"]})
        return save_code(
            folder, PIPELINE.format(**parts), artifacts={each.name: str(each) for each in artifacts.iterdir()},
            signature=infer_signature(REVIEWS, output), input_example=REVIEWS, **options,
        )  # fmt: skip

    return save


PAIRS = [{"text": "a fine film", "text_pair": "so fine it was"}, {"text": "dull", "text_pair": "a dull film"}]
ZERO_SHOT = {
    "sequences": "a fine film",
    "candidate_labels": json.dumps(["film", "book"]),
    "hypothesis_template": "This is a {}.",
}
PARAMS = {"top_k": 2, "function_to_apply": "softmax", "truncation": True, "max_length": 100}
RANKED = pd.DataFrame({"sequence": ["a"], "labels": ["film"], "scores": [0.5]})
SAVERS: dict[str, Save] = {
    "labels": pipeline("text-classification", classifier, TEXTS, LABELS, params=PARAMS),
    "reviews": pipeline(
        "text-classification",
        functools.partial(balanced, FILMS[:200]),
        TEXTS,
        LABELS,
        model_config={"truncation": True},
    ),
    "pairs": pipeline("text-classification", classifier, PAIRS, LABELS),
    "tokens": pipeline("token-classification", functools.partial(network, "BertForTokenClassification"), TEXTS, ["O"]),
    "features": pipeline("feature-extraction", functools.partial(network, "BertModel"), TEXTS, [[0.1]]),
    "masks": pipeline("fill-mask", functools.partial(network, "BertForMaskedLM"), ["a [MASK] film"], ["film"]),
    "zero-shot": pipeline("zero-shot-classification", entailing, ZERO_SHOT, RANKED),
    "sentences": sentences,
    "dense": functools.partial(sentences, dense=True),
    "pyfunc over transformers": pyfunc(OVER_TRANSFORMERS),
    "pyfunc over pytorch": pyfunc(OVER_PYTORCH, metadata={"likewise": {"accelerate": True}}),
    "pyfunc with gradients": pyfunc(WITH_GRADIENTS),
}
WITHOUT_BF16 = {"tokens", "masks", "zero-shot"}  # the last is untrained, so too many texts are borderline
VECTORS = {"features", "sentences", "dense"}
WITHOUT_TORCH = {"labels", "reviews", "pairs", "sentences", "dense"}
LONG = {"zero-shot", "pairs", "features", "masks", "dense", "tokens"}
FLAVORS = [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in SAVERS if "py" not in name]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("models")
    return functools.cache(lambda name: SAVERS[name](folder / name.replace(" ", "-") / "model"))


@pytest.fixture(scope="module")
def bundles(models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], api.Bundle]:
    """A bundle of each model; a pyfunc is accelerated by the option, or by its metadata."""
    folder = tmp_path_factory.mktemp("bundles")
    pd.DataFrame({"text": FILMS[::10]}).to_csv(folder / "films.csv", index=False)

    @functools.cache
    def bundle(name: str) -> api.Bundle:
        trust = name.startswith("pyfunc")
        options = UNMEASURED
        if name == "reviews":  # of generated texts, a fifth may be too close to call for bf16
            options = CompileOptions(measure=False, calibration=folder / "films.csv")
        elif trust:
            accelerate = name != "pyfunc over pytorch"
            options = CompileOptions(measure=False, accelerate=accelerate, calibration=folder / "films.csv")
        return api.bundle(models(name), folder / name.replace(" ", "-"), trust=trust, compiling=options)

    return bundle


def agree(found: Any, expected: Any) -> bool:
    return distance(plain(found), plain(expected), TOLERANCE) is not None


@pytest.mark.parametrize("name", FLAVORS)
def test_flavor_is_compiled_without_trust_and_predicts_what_it_did(
    name: str, models: Callable[[str], Path], bundles: Callable[[str], api.Bundle]
) -> None:
    bundle = bundles(name)
    fast = [] if name in WITHOUT_BF16 else ["bf16" if name in VECTORS else "bf16+fp32"][: len(BF16)]
    kind = "text-openvino" if name in WITHOUT_TORCH else "flavor-openvino"
    labels = [f"{each.name}/{each.precision}" for each in bundle.manifest.engines]
    assert labels == [*(f"{kind}/{each}" for each in (*fast, "fp32")), "flavor/native"]
    agreements = bundle.manifest.measured["agreement"]
    assert isinstance(agreements, dict)
    assert set(agreements) == set(labels[:-1])
    assert all(each["differ"] == 0 and each["rows"] > 100 for each in agreements.values())
    others = {"pairs": PAIRS, "masks": ["a [MASK] film", "so [MASK]"], "zero-shot": ZERO_SHOT}
    data = others.get(name, [*TEXTS, "another"])
    for precision in (*fast, "fp32"):
        engine = bundle.engine(kind, precision=precision.partition("+")[0])
        for params in [None, {"top_k": 1}] if name == "labels" else [None]:
            assert agree(predictions(engine, data, params), plain_model(models(name)).predict(data, params=params))
        counted = counters(engine)
        assert counted["compiled_calls"] > 0 == counted["original_calls"]


def predictions(engine: Any, data: Any, params: Params) -> Any:
    if isinstance(engine, PyfuncEngine):
        return engine.predict(data, params)
    dicts = all(isinstance(each, dict) for each in data)
    rows = [Row(tuple(each), tuple(each.values()), params) if dicts else Row(None, (each,), params) for each in data]
    found = [result.value if isinstance(result, Ok) else result.error for result in predict_items(engine, rows)]
    whole = Request(Table(rows[0].columns, [row.values for row in rows]), params)
    assert predict_items(engine, [whole]) == [Ok(found)]
    return found


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "top_k": st.sampled_from([1, 2, 5]),
        "function_to_apply": st.sampled_from(["softmax", "sigmoid", "none", "SIGMOID"]),
        "truncation": st.booleans(),
        "max_length": st.integers(3, 120),
    },
)
SHORT_TEXTS = st.lists(st.text(max_size=80) | st.sampled_from(FILMS[:50]), min_size=1, max_size=4)


def test_data_of_every_form_gives_the_predictions_of_plain_mlflow(
    models: Callable[[str], Path], bundles: Callable[[str], api.Bundle]
) -> None:
    literals = ["{'text': 'a', 'text_pair': 'b'}"]
    frame = pd.DataFrame({"text": TEXTS, "text_pair": "ignored"})
    for data in (TEXTS[0], TEXTS, pd.Series(TEXTS), pd.DataFrame(TEXTS), frame, literals):
        for params in (None, {"top_k": 1, "unknown": 1}, {"top_k": np.int64(-1)}):
            expected = plain_model(models("labels")).predict(data, params=params)
            assert agree(bundles("labels").predict(data, params), expected)
    reviews = bundles("reviews").predict(["{{1}}", "a fine film"], {"top_k": 2})
    assert list(reviews.columns) == ["label", "score"]
    vectors = bundles("sentences").predict(TEXTS)
    assert vectors.shape == (3, 32)
    assert agree(vectors, plain_model(models("sentences")).predict(TEXTS))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=SHORT_TEXTS, params=OPTIONS)
def test_text_engine_takes_the_params_that_transformers_takes(
    models: Callable[[str], Path], bundles: Callable[[str], api.Bundle], texts: list[str], params: dict[str, object]
) -> None:
    data = [f"a {text}" for text in texts]  # no literal of Python, which MLflow would parse
    expected = plain_model(models("labels")).predict(data, params=params)
    assert agree(predictions(bundles("labels").engine("text-openvino", precision="fp32"), data, params), expected)


WRONG = {"function_to_apply": "tanh", "truncation": "never"}


def test_text_engine_refuses_single_rows(bundles: Callable[[str], api.Bundle]) -> None:
    engine = bundles("labels").engine("text-openvino", precision="fp32")
    untruncated = {**PARAMS, "truncation": False}
    rows = [
        Row(None, ("a fine film",)),
        *(Row(None, (value,)) for value in (None, 5, "\ud800", float("nan"))),
        Row(None, ("word " * 500,), untruncated),
        Row(("review",), ("a fine film",)),
        Row(("review", "text"), ("a fine film", "a fine film")),
        *(Row(None, ("a film",), {name: value}) for name, value in WRONG.items()),
        Row(("text",), ("a dull film",)),
    ]
    first, *refused, last = predict_items(engine, rows)
    assert isinstance(first, Ok)
    assert isinstance(last, Ok)
    assert [type(each) for each in refused] == [Failed] * len(refused)
    assert {each.error.code for each in refused if isinstance(each, Failed)} == {"ROW_REFUSED"}


@pytest.mark.parametrize("runner", ["engine", "http", "score"])
def test_flavor_keeps_all_labels_of_2500_reviews(
    runner: str, models: Callable[[str], Path], bundles: Callable[[str], api.Bundle], tmp_path: Path
) -> None:
    expected = list(plain_model(models("reviews")).predict(FILMS)["label"])
    assert 500 < expected.count("positive") < 2000
    path = bundles("reviews").path
    if runner == "engine":
        for precision in ("bf16", "fp32")[1 - len(BF16) :]:
            engine = bundles("reviews").engine("text-openvino", precision=precision)
            assert [each["label"] for each in predictions(engine, FILMS, None)] == expected
    elif runner == "http":
        port = free_port()
        command = [*LIKEWISE, "serve", path, "--port", str(port)]
        url = f"http://127.0.0.1:{port}"
        with running(command, tmp_path / "log") as server, httpx.Client(base_url=url, timeout=60) as client:
            until(lambda: answers(client, "/ready") or server.process.poll() is not None, 120)
            reply = client.post("/invocations", json={"inputs": FILMS})
            assert reply.headers["X-Likewise-Engine"].startswith("text-openvino/")
        assert [each["label"] for each in reply.json()["predictions"]] == expected
    else:
        pd.DataFrame({"text": FILMS}).to_parquet(tmp_path / "in.parquet")
        api.score(path, tmp_path / "in.parquet", tmp_path / "out")
        frame = pd.read_parquet(tmp_path / "out")
        assert [each["label"] for each in frame["predictions"]] == expected


@functools.cache
def plain_model(path: Path) -> Any:
    return mlflow.pyfunc.load_model(str(path))


def predicted(engine: Any, texts: Sequence[str]) -> list[str]:
    return list(engine.predict(pd.DataFrame({"text": texts}))["label"])


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("pyfunc over transformers", 500),
        pytest.param("pyfunc over transformers", 2500, marks=pytest.mark.long),
        pytest.param("pyfunc over pytorch", 2500, marks=pytest.mark.long),
    ],
)
def test_pyfunc_is_compiled_and_keeps_all_labels(
    name: str, rows: int, models: Callable[[str], Path], bundles: Callable[[str], api.Bundle]
) -> None:
    films = FILMS[:: 2500 // rows]
    bundle = bundles(name)
    labels = [f"{each.name}/{each.precision}" for each in bundle.manifest.engines]
    assert labels == [*(f"pyfunc-openvino/{each}" for each in (*BF16, "fp32")), "pyfunc/native"]
    expected = predicted(mlflow.pyfunc.load_model(str(models(name))), films)
    assert 0.2 < expected.count("positive") / rows < 0.8
    for precision in ("bf16", "fp32")[1 - len(BF16) :]:
        engine = bundle.engine("pyfunc-openvino", precision=precision)
        assert predicted(engine, films) == expected
        assert counters(engine) == {"compiled_calls": rows, "original_calls": 0}


@pytest.mark.long
def test_pyfunc_is_not_compiled_unasked(models: Callable[[str], Path], tmp_path: Path) -> None:
    bundle = api.bundle(models("pyfunc over transformers"), tmp_path / "bundle", trust=True, compiling=UNMEASURED)
    assert [each.name for each in bundle.manifest.engines] == ["pyfunc"]
    with pytest.raises(EngineUnavailable, match="no engine pyfunc-openvino"):
        bundle.engine("pyfunc-openvino")


def test_server_counts_calls_of_modules(
    models: Callable[[str], Path], bundles: Callable[[str], api.Bundle], tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        *LIKEWISE,
        "serve",
        bundles("pyfunc over transformers").path,
        "--trust",
        "--port",
        url.rpartition(":")[2],
    ]
    with running(command, tmp_path / "log") as server, httpx.Client(base_url=url, timeout=60) as client:
        until(lambda: answers(client, "/ready") or server.process.poll() is not None, 120)
        reply = client.post("/invocations", json={"dataframe_records": REVIEWS.to_dict("records")})
        assert reply.headers["X-Likewise-Engine"].startswith("pyfunc-openvino/")
        expected = predicted(mlflow.pyfunc.load_model(str(models("pyfunc over transformers"))), TEXTS)
        assert [each["label"] for each in reply.json()["predictions"]] == expected
        lines = client.get("/metrics").text.splitlines()
    found = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines if "_calls{" in line}
    assert found["likewise_compiled_calls"] >= 3
    assert found["likewise_original_calls"] == 0


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.long
def test_reason_is_reported_if_nothing_can_be_compiled(models: Callable[[str], Path], tmp_path: Path) -> None:
    lines: list[str] = []
    saved = models("pyfunc with gradients")
    bundle = api.bundle(saved, tmp_path / "bundle", trust=True, compiling=ACCELERATE, report=lines.append)
    assert [each.name for each in bundle.manifest.engines] == ["pyfunc"]
    assert "gradients are enabled (torch.no_grad() disables them)" in " ".join(lines)
    assert predicted(bundle.engine(), TEXTS) == predicted(mlflow.pyfunc.load_model(str(saved)), TEXTS)
