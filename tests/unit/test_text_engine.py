"""The text engine on a small real checkpoint."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.support.classifier import POSITIONS, TEXTS, as_mlflow_flavor, make_classifier
from transformers import AutoModelForSequenceClassification

from likewise.core.errors import ModelInvalid
from likewise.engine.text import Forward, TextEngine, find_checkpoint, open_torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> TextEngine:
    return TextEngine.open(folder)


def test_labels_and_scores_match_transformers(folder: Path, engine: TextEngine) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    encodings = engine.prepare(TEXTS)
    for encoding, prediction in zip(encodings, engine.run(encodings), strict=True):
        with torch.inference_mode():
            odds = model(input_ids=torch.tensor([encoding.tolist()])).logits.softmax(dim=1)[0]
        assert prediction.label == model.config.id2label[int(odds.argmax())]
        assert prediction.score == pytest.approx(float(odds.max()), abs=1e-5)


def test_both_labels_occur(engine: TextEngine) -> None:
    assert {prediction.label for prediction in engine.run(engine.prepare(TEXTS))} == {"negative", "positive"}


def test_mlflow_transformers_folder_gives_the_same_predictions(
    folder: Path, engine: TextEngine, tmp_path: Path
) -> None:
    other = TextEngine.open(as_mlflow_flavor(folder, tmp_path / "flavor"))
    assert other.run(other.prepare(TEXTS)) == engine.run(engine.prepare(TEXTS))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(len(TEXTS))), count=st.integers(1, len(TEXTS)), budget=st.integers(1, 5000))
def test_predictions_do_not_depend_on_batch_order_or_budget(
    engine: TextEngine, order: list[int], count: int, budget: int
) -> None:
    alone = [engine.run(engine.prepare([text]))[0] for text in TEXTS]
    chosen = order[:count]
    together = engine.run(engine.prepare([TEXTS[index] for index in chosen]), budget=budget)
    assert [each.label for each in together] == [alone[index].label for index in chosen]
    assert [each.score for each in together] == pytest.approx([alone[index].score for index in chosen], abs=1e-5)


def test_windows_respect_the_budget_and_padding_is_masked(folder: Path) -> None:
    shapes: list[tuple[int, int]] = []

    def open_watched(checkpoint: object) -> Forward:
        forward = open_torch(find_checkpoint(folder))

        def watched(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            assert ids.dtype == mask.dtype == np.int64
            assert ids.shape == mask.shape
            assert (ids[mask == 0] == 0).all()
            assert (ids[mask == 1] != 0).all()
            shapes.append(ids.shape)
            return forward(ids, mask)

        return watched

    engine = TextEngine.open(folder, open_forward=open_watched)
    engine.run(engine.prepare(TEXTS), budget=150)
    assert all(rows * length <= 150 or rows == 1 for rows, length in shapes)
    assert sum(rows for rows, _ in shapes) == len(TEXTS)


def test_long_texts_are_truncated(folder: Path, engine: TextEngine) -> None:
    assert len(engine.prepare(["word " * 200])[0]) == POSITIONS
    assert len(TextEngine.open(folder, max_length=16).prepare(["word " * 200])[0]) == 16


def test_no_texts_give_no_predictions(engine: TextEngine) -> None:
    assert engine.run(engine.prepare([])) == []


def test_threads_get_the_right_predictions(engine: TextEngine) -> None:
    expected = [each.label for each in engine.run(engine.prepare(TEXTS))]
    results: list[list[str]] = []

    def predict() -> None:
        results.extend([each.label for each in engine.run(engine.prepare(TEXTS))] for _ in range(5))

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 20


def test_pickled_weights_are_rejected(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelInvalid, match="safetensors"):
        TextEngine.open(folder)


def test_backbone_without_a_head_is_rejected(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if "classifier" not in name},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ModelInvalid, match=r"classifier\.(bias|weight)"):
        TextEngine.open(folder)


def test_damaged_weights_are_rejected(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelInvalid, match="cannot load"):
        TextEngine.open(folder)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_missing_file_is_reported(tmp_path: Path, missing: str) -> None:
    folder = make_classifier(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(ModelInvalid, match=missing):
        TextEngine.open(folder)


@pytest.mark.parametrize(
    "change", [{"id2label": {"0": "only"}}, {"id2label": {"0": "a", "7": "b"}}, {"problem_type": "regression"}]
)
def test_unsupported_model_is_rejected(tmp_path: Path, change: dict[str, object]) -> None:
    folder = make_classifier(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelInvalid, match=next(iter(change))):
        TextEngine.open(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_invalid_file_is_reported(tmp_path: Path, name: str) -> None:
    folder = make_classifier(tmp_path)
    (folder / name).write_text("{")
    with pytest.raises(ModelInvalid, match=name):
        TextEngine.open(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"attn_implementation": "kernels-community/flash-attn2"},
        {"_attn_implementation": "evil/kernel"},
        {"_attn_implementation": {"": "evil/kernel"}},
        {"text_config": {"_attn_implementation": "flash_attention_2"}},
        {"layers": [{"attn_implementation": "evil/kernel"}]},
        {"auto_map": {"AutoConfig": "evil--configuration.Config"}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"text_config": {"quantization_config": {"quant_method": "gptq"}}},
        {"configuration_files": ["config.4.0.0.json"]},
        {"transformers_weights": "pytorch_model.bin"},
        {"attribute_map": {"x": "_attn_implementation"}, "x": "evil/kernel"},
    ],
    ids=str,
)
def test_configuration_that_requests_external_code_or_files_is_rejected(
    folder: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    copy = _changed(folder, tmp_path / "copy", change)
    with pytest.raises(
        ModelInvalid, match=r"config\.json: (_?attn_implementation|auto_map|quant|configur|transf|attr)"
    ):
        find_checkpoint(copy)


def test_adapter_that_names_another_model_is_rejected(folder: Path, tmp_path: Path) -> None:
    copy = _changed(folder, tmp_path / "copy", {})
    (find_checkpoint(copy).weights / "adapter_config.json").write_text('{"base_model_name_or_path": "/tmp/evil"}')
    with pytest.raises(ModelInvalid, match=r"adapter_config\.json names another model"):
        find_checkpoint(copy)


def test_index_that_names_weights_outside_its_folder_is_rejected(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    outside = shutil.copy(copy / "model.safetensors", tmp_path / "outside.safetensors")
    (copy / "model.safetensors").rename(copy / "part.safetensors")
    names = load_file(outside)
    for shard in ("part.safetensors", outside, "../outside.safetensors"):
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, str(shard))}
        (copy / "model.safetensors.index.json").write_text(json.dumps(index))
        if shard == "part.safetensors":
            TextEngine.open(copy)
            continue
        with pytest.raises(ModelInvalid, match="is not a file in this folder"):
            TextEngine.open(copy)


def test_empty_folder_does_not_select_another_checkpoint(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy" / "below")
    shutil.copy(folder / "config.json", tmp_path / "copy")
    before = find_checkpoint(tmp_path / "copy")
    for name in ("x.safetensors", "tokenizer.json"):
        (tmp_path / "copy" / name).mkdir()
    assert find_checkpoint(tmp_path / "copy") == before


@pytest.mark.parametrize(
    "change",
    [
        {"_attn_implementation": "sdpa"},
        {"attn_implementation": "eager"},
        {"attn_implementation": {"": "sdpa"}, "quantization_config": None},
    ],
    ids=str,
)
def test_built_in_attention_implementations_are_accepted(
    folder: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    engine = TextEngine.open(_changed(folder, tmp_path / "copy", change))
    assert len(engine.run(engine.prepare(TEXTS))) == len(TEXTS)


def _changed(folder: Path, copy: Path, change: dict[str, object]) -> Path:
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    return copy
