"""The compiled engine of the chapter's model: fp32's labels, without torch, on CPUs with and without bf16."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.support import processes
from tests.support.cli import call
from tests.support.processes import run
from tests.support.sentiment_store import TEXTS, Store, environment

from likewise import api
from likewise.bundles.open import open_bundle
from likewise.core.engine import Engine, predict_items
from likewise.core.errors import BundleTampered
from likewise.core.items import Row
from likewise.core.results import Ok
from likewise.demo.data import reviews, split
from likewise.engine.openvino_calls import runtime
from likewise.engine.rates import cpu_class, remember_rates
from likewise.engine.text import TextEngine
from likewise.engine.text.guard import margins
from likewise.pipeline.engine import calibrations

HELD_OUT = [review.text for review in split(reviews()).held_out]


def texts_file(path: Path, texts: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([text] for text in texts)])
    return path


def likewise(store: Store, folder: Path, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process and in `folder`, with its own cache."""
    cache = {"LIKEWISE_CACHE_HOME": str(folder / "cache")}
    return call(*words, cwd=folder, env=store.env | cache | env)


@pytest.fixture(scope="module")
def folder(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is calibrated on typical input texts."""
    base = tmp_path_factory.mktemp("compiled")
    train = [review.text for review in split(reviews()).train[:300]]
    texts = texts_file(base / "texts.csv", train)
    done = likewise(store, base, "bundle", store.uri, "-o", base / "bundle", "--calibration", texts)
    assert done.returncode == 0, done.stderr[-3000:]
    return base / "bundle"


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Iterator[api.Bundle]:
    with api.open_bundle(folder) as opened:
        yield opened


def predict(engine: Engine, texts: Sequence[str]) -> list[str]:
    results = predict_items(engine, [Row(("text",), (text,)) for text in texts])
    assert all(isinstance(result, Ok) for result in results)
    return [result.value["text"] for result in results]  # type: ignore[union-attr,index]


@pytest.fixture(scope="module")
def reference(bundle: api.Bundle) -> dict[str, str]:
    """Torch's predictions, by text."""
    texts = [*TEXTS, *HELD_OUT]
    return dict(zip(texts, predict(bundle.engine("torch"), texts), strict=True))


@pytest.fixture
def bf16(bundle: api.Bundle) -> str:
    if "BF16" not in runtime().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bf16 instructions")
    assert [calibration.refused for calibration in calibrations(bundle).values()] == [""]
    return "bf16"


def test_manifest_lists_verified_and_measured_engines(bundle: api.Bundle, bf16: str) -> None:
    labels = [f"{entry.name}/{entry.precision}" for entry in bundle.manifest.engines]
    assert labels == ["openvino/bf16+fp32", "openvino/fp32", "torch/fp32", "pyfunc/native"]
    assert bundle.manifest.measured["proved_engines"] == labels[:3]
    rates = bundle.manifest.rates
    assert isinstance(rates, dict)
    assert set(rates[cpu_class()]) == set(labels[:3])
    fastest = max(labels[:3], key=rates[cpu_class()].__getitem__)
    assert bundle.engine().spec.label == fastest
    [calibration] = calibrations(bundle).values()
    assert calibration.texts == 300
    assert calibration.guard >= 1.5 * calibration.drift > 0
    assert (calibration.agreement, calibration.refused) == (1.0, "")


def test_both_precisions_give_torchs_labels(bundle: api.Bundle, reference: dict[str, str], bf16: str) -> None:
    texts = list(reference)
    for precision in (bf16, "fp32"):
        engine = bundle.engine("openvino", precision=precision)
        assert predict(engine, texts) == list(reference.values())


def test_some_texts_are_borderline_and_recomputed(store: Store, bundle: api.Bundle, bf16: str) -> None:
    """Otherwise the test of the labels would not test the guard."""
    [calibration] = calibrations(bundle).values()
    engine = TextEngine.open(bundle.resolve(store.model_uri))
    near = margins(engine.logits(engine.prepare(HELD_OUT))) < calibration.guard / 2
    assert 0 < near.sum() < 0.2 * len(HELD_OUT)


def test_predictions_do_not_depend_on_batch_or_order(bundle: api.Bundle, reference: dict[str, str], bf16: str) -> None:
    engine, texts = bundle.engine(precision=bf16), [*TEXTS, *HELD_OUT[:100]]
    expected = [reference[text] for text in texts]
    assert predict(engine, texts[::-1]) == expected[::-1]
    assert [predict(engine, [text])[0] for text in texts] == expected


NO_TORCH = """
import importlib.abc, json, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "safetensors", "mlflow", "openvino_telemetry"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Block())
from likewise import api
from likewise.core.engine import predict_items
from likewise.core.items import Row
engine = api.open_bundle(sys.argv[1], precision=sys.argv[2]).engine()
texts = json.loads(sys.argv[3])
results = predict_items(engine, [Row(("text",), (text,)) for text in texts])
print(engine.spec.label, json.dumps([result.value["text"] for result in results]))
"""


@pytest.mark.parametrize(("precision", "label"), [("bf16", "openvino/bf16+fp32"), ("fp32", "openvino/fp32")])
def test_runs_without_torch_and_transformers(
    folder: Path, reference: dict[str, str], bf16: str, precision: str, label: str, tmp_path: Path
) -> None:
    texts = [*TEXTS, *HELD_OUT[:200]]
    done = run([sys.executable, "-c", NO_TORCH, folder, precision, json.dumps(texts)], env=environment())
    name, _, predictions = done.stdout.partition(" ")
    assert name == label
    assert json.loads(predictions) == [reference[text] for text in texts]


@pytest.mark.parametrize(
    ("option", "label"),
    [
        (["--exact"], "openvino/fp32"),
        (["--precision", "bf16"], "openvino/bf16+fp32"),
        (["--engine", "torch"], "torch/fp32"),
    ],
)
def test_score_uses_the_requested_engine(
    store: Store,
    folder: Path,
    reference: dict[str, str],
    bf16: str,
    option: list[str],
    label: str,
    tmp_path: Path,
) -> None:
    source = texts_file(tmp_path / "in.csv", HELD_OUT[:100])
    done = likewise(store, tmp_path, "score", folder, source, "-o", tmp_path / "out.jsonl", "--json", *option)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["engine"] == label
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["predictions"] for line in lines] == [reference[text] for text in HELD_OUT[:100]]


def test_fp32_is_used_if_bf16_is_disabled(
    store: Store, folder: Path, bf16: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "avx512f" not in cpu_class():
        pytest.skip("only on x86 CPUs can instructions be disabled")
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    source = texts_file(tmp_path / "in.csv", HELD_OUT[:10])
    score = ["score", folder, source, "-o", tmp_path / "out.csv", "--json"]
    less = store.env | {"ONEDNN_MAX_CPU_ISA": "AVX2", "LIKEWISE_CACHE_HOME": str(tmp_path / "cache")}
    pinned = processes.likewise(*score, "--precision", "bf16", env=less, code=1)
    error = json.loads(pinned.stdout)["error"]
    assert error["code"] == "ENGINE_UNAVAILABLE"
    assert "--precision fp32" in error["remedy"]
    remember_rates(open_bundle(folder).manifest, {"openvino/bf16+fp32": 900.0, "openvino/fp32": 50.0})
    free = processes.likewise(*score, env=less)
    assert json.loads(free.stdout)["engine"] == "openvino/fp32"


@pytest.mark.long
def test_digest_does_not_depend_on_compiled_engines(store: Store, folder: Path, tmp_path: Path) -> None:
    """Without bf16, calibration file and measurement: a different engine, and a notice how to measure."""
    bundle = ["bundle", store.uri, "-o", tmp_path / "b", "--precision", "fp32", "--no-measure", "--json"]
    done = likewise(store, tmp_path, *bundle)
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(done.stdout)
    manifest = open_bundle(folder).manifest
    assert document["digest"] == manifest.digest
    assert [f"{e['name']}/{e['precision']}" for e in document["engines"]][:2] == ["openvino/fp32", "torch/fp32"]
    assert document["rates"] == {}
    assert document["calibration"] == {}
    assert document["build"] != open_bundle(folder).build  # the other one has measured bf16, or offers it
    assert "bf16 for" in done.stderr
    score = ["score", document["path"], str(texts_file(tmp_path / "in.csv", ["fine"])), "-o", str(tmp_path / "out.csv")]
    assert f"likewise inspect {document['path']} --measure" in likewise(store, tmp_path, *score).stderr
    measured = likewise(store, tmp_path, "inspect", document["path"], "--measure", "--json")
    assert set(json.loads(measured.stdout)["rates"]) == {"openvino/fp32", "torch/fp32"}
    assert set(json.loads(likewise(store, tmp_path, "inspect", document["path"], "--json").stdout)["rates"]) == {
        "openvino/fp32",
        "torch/fp32",
    }


def test_inspect_shows_rates_and_calibration(store: Store, folder: Path, bf16: str, tmp_path: Path) -> None:
    output = likewise(store, tmp_path, "inspect", folder).stdout
    assert "openvino/bf16+fp32, " in output
    assert " rows/s on this kind of CPU" in output
    assert "recomputed in fp32 (margin below " in output
    assert "fp32 on 300 texts (texts.csv)" in output


def test_bf16_is_not_offered_if_too_many_texts_are_borderline(
    store: Store, bundle: api.Bundle, bf16: str, tmp_path: Path
) -> None:
    engine = TextEngine.open(bundle.resolve(store.model_uri))
    nearest = margins(engine.logits(engine.prepare(HELD_OUT))).argsort()[:4]
    near = texts_file(tmp_path / "near.csv", [HELD_OUT[row] for row in nearest])
    arguments = ["bundle", store.uri, "-o", str(tmp_path / "b"), "--calibration", str(near), "--precision", "bf16"]
    done = likewise(store, tmp_path, *arguments, "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "ENGINE_UNAVAILABLE"
    assert "of the texts would have to be recomputed in fp32" in error["cause"]
    assert not (tmp_path / "b").exists()


WITHOUT_OPENVINO = """
import sys
sys.modules["openvino"] = None
from likewise.cli import main
main()
"""


@pytest.mark.long
def test_bundle_without_openvino_has_the_other_engines(store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_OPENVINO, "bundle", store.uri, "-o", str(tmp_path / "b"), "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=store.env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [e["name"] for e in json.loads(done.stdout)["engines"]] == ["torch", "pyfunc"]
    assert "no compiled engine: compiling needs openvino, which is not installed (pip install" in done.stderr
    refused = subprocess.run(
        [*command[:-3], "-o", str(tmp_path / "c"), "--precision", "bf16"],
        cwd=tmp_path,
        env=store.env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert refused.returncode == 1
    assert "ENGINE_UNAVAILABLE" in refused.stderr


@pytest.mark.parametrize("name", ["classifier.json", "model.xml", "model.bin", "tokenizer.json"])
def test_changed_byte_is_rejected(folder: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=os.link)
    [path] = (copy / "engine" / "openvino").rglob(name)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    with pytest.raises(BundleTampered, match=name):
        open_bundle(copy)
