"""Compiled modules: what a graph computes, what the original computes, and that a model's code sees no difference."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.classifier import POSITIONS, make_classifier
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from likewise.core.errors import BundleInvalid, EngineUnavailable
from likewise.core.results import Ok
from likewise.engine.accelerate.agreement import Tolerance, agreement, distance
from likewise.engine.accelerate.convert import convert_module
from likewise.engine.accelerate.form import Form
from likewise.engine.accelerate.forward import Recorder
from likewise.engine.accelerate.loading import fingerprint, watching
from likewise.engine.accelerate.modules import CompiledModules
from likewise.engine.openvino_calls import has_bf16
from likewise.engine.text.cascade import Cascade, cascaded, choose, choosing, proving, texts_for

pytestmark = pytest.mark.slow

FAST = "bf16+fp32" if has_bf16() else "fp32"


def batch(*lengths: int, width: int | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
    """Ids and mask of texts with these numbers of tokens."""
    random = np.random.default_rng(seed)
    width = width or max(lengths)
    mask = (np.arange(width)[None, :] < np.array(lengths)[:, None]).astype(np.int64)
    ids = random.integers(1, 150, mask.shape) * mask
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled classifier and encoder of the checkpoint, as in a bundle."""
    folder = tmp_path_factory.mktemp("compiled")
    for kind in (AutoModelForSequenceClassification, AutoModel):
        compile_one(kind.from_pretrained(checkpoint), folder)
    return folder


def compile_one(module: Any, folder: Path) -> Form:
    recorder = Recorder(module)
    with torch.no_grad():
        for seed in range(80):
            module(**batch(3 + seed % 20, seed=seed))
    recorder.stop()
    made = convert_module(recorder, folder / fingerprint(module), bf16=True, factor=3.0, source="generated texts")
    return made.form


@pytest.fixture
def compiled(folder: Path) -> CompiledModules:
    return CompiledModules(folder, FAST)


@pytest.fixture
def module(checkpoint: Path, compiled: CompiledModules) -> Any:
    with compiled:
        return AutoModelForSequenceClassification.from_pretrained(checkpoint)


@pytest.fixture
def original(checkpoint: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(checkpoint)


# --- the same answers ------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, POSITIONS), min_size=1, max_size=20), seed=st.integers(0, 99))
def test_module_returns_what_it_returned(checkpoint: Path, folder: Path, lengths: list[int], seed: int) -> None:
    module, original = loaded(checkpoint, folder)
    inputs = batch(*lengths, seed=seed)
    with torch.no_grad():
        found, expected = module(**inputs), original(**inputs)
    assert type(found) is SequenceClassifierOutput
    assert found.logits.numpy() == pytest.approx(expected.logits.numpy(), abs=0.1)
    margins = np.diff(np.sort(expected.logits.numpy()), axis=1)[:, -1]
    same = found.logits.argmax(1) == expected.logits.argmax(1)
    assert same[margins > 1e-5].all()


_loaded: dict[Path, tuple[Any, Any]] = {}


def loaded(checkpoint: Path, folder: Path) -> tuple[Any, Any]:
    if folder not in _loaded:
        with CompiledModules(folder, FAST):
            module = AutoModelForSequenceClassification.from_pretrained(checkpoint)
        _loaded[folder] = module, AutoModelForSequenceClassification.from_pretrained(checkpoint)
    return _loaded[folder]


def test_encoder_returns_vectors_of_all_tokens(checkpoint: Path, folder: Path) -> None:
    inputs = batch(3, 17, 9, width=21)
    with CompiledModules(folder, "fp32") as _:
        module = AutoModel.from_pretrained(checkpoint)
    with torch.inference_mode():
        found, expected = module(**inputs), AutoModel.from_pretrained(checkpoint)(**inputs)
    assert found.keys() == expected.keys()
    assert found.last_hidden_state.numpy() == pytest.approx(expected.last_hidden_state.numpy(), abs=1e-4)
    assert found.pooler_output.numpy() == pytest.approx(expected.pooler_output.numpy(), abs=1e-4)


def test_module_stays_what_it_was(module: Any, original: Any) -> None:
    assert isinstance(module, type(original))
    assert inspect.signature(module.forward) == inspect.signature(original.forward)
    assert module.state_dict().keys() == original.state_dict().keys()
    with torch.no_grad():
        inputs = batch(5)
        expected = original(**inputs).logits.tolist()
        pickled = pickle.loads(pickle.dumps(module))  # noqa: S301
        for other in (copy.deepcopy(module), pickled):
            assert other(**inputs).logits.tolist() == expected  # in torch
        changed = copy.deepcopy(module)
        changed.classifier.bias.add_(1.0)
        assert changed(**inputs).logits.numpy() == pytest.approx(np.array(expected) + 1, abs=1e-5)
        seen: list[Any] = []
        module.register_forward_hook(lambda *given: seen.append(given[2]))
        assert module(inputs["input_ids"], inputs["attention_mask"]).logits.tolist() == seen[-1].logits.tolist()


def test_threads_get_their_own_results(module: Any) -> None:
    inputs = [batch(*range(1, 12), seed=seed) for seed in range(4)]
    with torch.no_grad():
        expected = [module(**each).logits.tolist() for each in inputs]
    found: dict[int, set[str]] = {}

    def predict(at: int) -> None:
        with torch.no_grad():
            found[at] = {json.dumps(module(**inputs[at]).logits.tolist()) for _ in range(20)}

    threads = [threading.Thread(target=predict, args=(at,)) for at in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [found[at] for at in range(4)] == [{json.dumps(each)} for each in expected]


# --- what the graph does not cover -----------------------------------------------------------------------------------

UNCOVERED: dict[str, tuple[dict[str, Any], str]] = {
    "hidden states": ({"output_hidden_states": True}, "other arguments"),
    "labels": ({"labels": torch.tensor([1, 0])}, "other arguments"),
    "a tuple": ({"return_dict": False}, "other arguments"),
    "types of tokens": ({"token_type_ids": torch.ones((2, 5), dtype=torch.int64)}, "other arguments"),
    "ids as int32": ({"input_ids": torch.ones((2, 5), dtype=torch.int32)}, "input_ids is of another type"),
    "an empty text": ({"attention_mask": torch.tensor([[1] * 5, [0] * 5])}, "mask of a text is empty"),
    "a mask of weights": ({"attention_mask": torch.full((2, 5), 2)}, "attention_mask has other values"),
}


@pytest.mark.parametrize("name", UNCOVERED)
def test_original_computes_other_calls(name: str, module: Any, original: Any, compiled: CompiledModules) -> None:
    changes, why = UNCOVERED[name]
    inputs = {**batch(5, 5), **changes}
    with torch.no_grad():
        found, expected = module(**inputs), original(**inputs)
    flat = [each for each in (found if isinstance(found, tuple) else found.values()) if isinstance(each, torch.Tensor)]
    same = [
        each for each in (expected if isinstance(expected, tuple) else expected.values())
        if isinstance(each, torch.Tensor)
    ]  # fmt: skip
    assert type(found) is type(expected)
    assert [each.tolist() for each in flat] == [each.tolist() for each in same]
    assert compiled.calls.compiled == 0
    assert why in next(iter(compiled.calls.original))


def test_invalid_ids_and_lengths_raise_as_before(module: Any, compiled: CompiledModules) -> None:
    with torch.no_grad():
        for inputs in (batch(5) | {"input_ids": torch.full((1, 5), 10_000)}, batch(2 * POSITIONS)):
            with pytest.raises((IndexError, RuntimeError)):
                module(**inputs)
    assert compiled.calls.compiled == 0


def test_gradients_training_and_changed_weights_are_computed_by_the_original(
    module: Any, compiled: CompiledModules
) -> None:
    inputs = batch(6)
    assert module(**inputs).logits.requires_grad
    with torch.no_grad():
        module.train()
        module(**inputs)
        module.eval()
        module(**inputs)
        assert compiled.calls.compiled == 1
        module.classifier.bias.add_(1.0)
        assert (module(**inputs).logits > 0.5).any()
        module.to(torch.float64)
        assert module(**inputs).logits.dtype == torch.float64
    reasons = " ".join(compiled.calls.original)
    assert all(each in reasons for each in ("gradients", "training", "weights were changed", "moved to another type"))
    assert compiled.calls.counters == {"compiled_calls": 1, "original_calls": 4}


# --- loading ---------------------------------------------------------------------------------------------------------


def test_only_the_same_weights_are_replaced_and_only_in_the_context(
    checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    compiled = CompiledModules(folder, "fp32")
    other = make_classifier(tmp_path / "other", seed=7)
    with compiled:
        different = AutoModelForSequenceClassification.from_pretrained(other)
        changed = AutoModelForSequenceClassification.from_pretrained(checkpoint)
        changed.load_state_dict(different.state_dict())
        same = AutoModelForSequenceClassification.from_pretrained(other)
        same.load_state_dict(AutoModelForSequenceClassification.from_pretrained(checkpoint).state_dict())
    outside = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    inputs = batch(5, 9)
    with torch.no_grad():
        expected = outside(**inputs).logits
        assert changed(**inputs).logits.tolist() == different(**inputs).logits.tolist() != expected.tolist()
        assert compiled.calls.counters == {"compiled_calls": 0, "original_calls": 0}
        assert same(**inputs).logits.numpy() == pytest.approx(expected.numpy(), abs=1e-4)
    assert compiled.calls.counters == {"compiled_calls": 1, "original_calls": 0}


def test_contexts_of_several_models_and_threads_do_not_mix(checkpoint: Path) -> None:
    seen: dict[str, list[Any]] = {"outer": [], "inner": [], "thread": []}
    with watching(seen["outer"].append):
        AutoModel.from_pretrained(checkpoint)
        with watching(seen["inner"].append):
            AutoModel.from_pretrained(checkpoint)
        thread = threading.Thread(target=AutoModel.from_pretrained, args=(checkpoint,))
        thread.start()
        thread.join()
    assert [len(each) for each in seen.values()] == [1, 1, 0]


def test_loader_with_loading_info_and_its_class_method_stay(checkpoint: Path) -> None:
    seen: list[Any] = []
    with watching(seen.append):
        module, info = AutoModel.from_pretrained(checkpoint, output_loading_info=True)
    assert seen == [module]
    assert "missing_keys" in info
    assert isinstance(inspect.getattr_static(PreTrainedModel, "from_pretrained"), classmethod)


# --- converting ------------------------------------------------------------------------------------------------------


class Tabular(torch.nn.Module):
    """Takes arrays of numbers, and positions in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(10, 4)
        self.linear = torch.nn.Linear(7, 2)

    def forward(self, numbers: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.cat([numbers, self.table(kind)], dim=1)).tanh()


@pytest.fixture
def tabular(tmp_path: Path) -> tuple[Any, Any, CompiledModules]:
    torch.manual_seed(1)
    module = Tabular().eval()
    recorder = Recorder(module)
    with torch.no_grad():
        for rows in (1, 4, 2):
            module(torch.randn(rows, 3), torch.arange(rows))
    recorder.stop()
    convert_module(recorder, tmp_path / fingerprint(module), bf16=True, factor=3.0, source="rows")
    compiled = CompiledModules(tmp_path, "fp32")
    fast = Tabular().eval()
    fast.load_state_dict(module.state_dict())
    compiled._replace(fast)
    return fast, module, compiled


def test_another_module_is_compiled_in_fp32_only(tabular: tuple[Any, Any, CompiledModules]) -> None:
    fast, module, compiled = tabular
    with torch.no_grad():
        for rows in (1, 3, 17):
            numbers, kind = torch.randn(rows, 3), torch.arange(rows) % 10
            assert fast(numbers, kind).numpy() == pytest.approx(module(numbers, kind).numpy(), abs=1e-5)
        assert compiled.calls.counters == {"compiled_calls": 3, "original_calls": 0}
        with pytest.raises(IndexError):
            fast(torch.randn(1, 3), torch.tensor([10]))
        with pytest.raises(RuntimeError):
            fast(torch.randn(1, 4), torch.tensor([1]))
        fast(torch.randn(1, 3, dtype=torch.float32), kind=torch.tensor([1]))
    assert not any(form.fast for _, form, _ in compiled._found.values())


class Sampling(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.linear(numbers) + numbers.sum().item()  # a trace keeps the number of its first call


def test_module_whose_graph_is_wrong_is_not_compiled(tmp_path: Path) -> None:
    module = Sampling().eval()
    recorder = Recorder(module)
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(2, 3))
    recorder.stop()
    with pytest.raises(EngineUnavailable, match="OpenVINO cannot convert Sampling"):
        convert_module(recorder, tmp_path / "out", bf16=True, factor=3.0, source="rows")


def test_module_that_is_not_called_or_returns_objects_is_not_compiled(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="the model did not call it"):
        convert_module(Recorder(Sampling()), tmp_path / "out", bf16=True, factor=3.0, source="rows")
    module = Sampling().eval()
    recorder = Recorder(module)
    module(torch.randn(1, 3))
    with pytest.raises(EngineUnavailable, match="gradients are enabled"):
        convert_module(recorder, tmp_path / "out", bf16=True, factor=3.0, source="rows")


def test_form_is_read_as_written_and_damage_is_reported(folder: Path, tmp_path: Path) -> None:
    for path in sorted(folder.glob("*/module.json")):
        form = Form.read(path.parent)
        form.write(tmp_path)
        assert Form.read(tmp_path) == form
        raw = json.loads(path.read_text())
        for damage in ("{", "[]", json.dumps({**raw, "format": 0}), json.dumps({**raw, "kind": "__import__"}),
                       json.dumps({key: raw[key] for key in raw if key != "inputs"})):  # fmt: skip
            (tmp_path / "module.json").write_text(damage)
            with pytest.raises(BundleInvalid, match="not valid"):
                Form.read(tmp_path)


# --- cascades --------------------------------------------------------------------------------------------------------


def logits(labels: list[int], leads: list[float]) -> np.ndarray:
    """Of two labels, with these leads of the right one."""
    made = np.zeros((len(labels), 2), dtype=np.float32)
    made[range(len(labels)), labels] = leads
    return made


def test_cascade_permits_a_part_of_the_labels_that_may_change() -> None:
    exact = logits([0] * 100, [2.0] * 100)
    first = logits([1] * 4 + [0] * 96, [0.5, 0.6, 0.7, 0.8] + [5.0] * 96)
    lengths = np.full(100, 200)
    cascade = choose({64: first}, exact, lengths, share=0.94, guard=0.01)  # 2 of 100 may change
    assert cascade is not None
    assert 0.6 < cascade.margin < 0.61
    assert cascade.cost == pytest.approx(64 / 200 + 2 / 100)
    assert choose({64: first}, exact, lengths, share=0.94, guard=0.75) == replace(cascade, margin=0.75, cost=0.35)
    assert choose({64: logits([1] * 100, [9.0] * 100)}, exact, lengths, share=0.94, guard=0.01) is None


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_cascade_computes_whole_texts_that_the_first_tokens_do_not_decide(lengths: list[int], seed: int) -> None:
    inputs = batch(*lengths, seed=seed)
    ids, mask = (inputs[name].numpy() for name in ("input_ids", "attention_mask"))

    def first(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        assert ids.shape[1] == mask.shape[1] == 8
        return np.stack([ids[:, 0] % 3, np.zeros(len(ids))], axis=1).astype(np.float32)

    def whole(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.stack([ids.sum(axis=1), mask.sum(axis=1)], axis=1).astype(np.float32)

    found = cascaded(first, whole, Cascade(8, 1.0, 0.5), 1)(ids, mask)
    for row, length in enumerate(lengths):
        decided = length > 8 and ids[row, 0] % 3 >= 1
        expected = [ids[row, 0] % 3, 0] if decided else [ids[row].sum(), length]
        assert found[row].tolist() == expected


def test_share_takes_enough_texts() -> None:
    assert texts_for(0.999) > 2 * 2995
    assert len(list(choosing(10))) + len(proving(10)) == 10
    assert not set(choosing(10)) & set(proving(10))


# --- agreement -------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(value=values)
def test_equal_predictions_agree(value: Any) -> None:
    assert distance(value, copy.deepcopy(value), Tolerance(0.0, 0.0)) == 0.0


CASES: dict[str, tuple[Any, Any, bool]] = {
    "score within": ({"label": "a", "score": 0.5}, {"label": "a", "score": 0.505}, True),
    "score outside": ({"label": "a", "score": 0.5}, {"label": "a", "score": 0.52}, False),
    "label": ({"label": "a", "score": 0.5}, {"label": "b", "score": 0.5}, False),
    "whole number": (1, 2, False),
    "integer for a float": (1.0, 1, False),
    "score in a document": ('{"score": 0.5}', '{"score": 0.501}', True),
    "label in a document": ('{"label": "a"}', '{"label": "b"}', False),
    "text": ("a", "b", False),
    "vector within": ([1.0] * 9, [*[1.0] * 8, 1.01], True),
    "vector outside": ([1.0] * 9, [*[1.0] * 8, 2.0], False),
    "vector of another length": ([1.0] * 9, [1.1] * 9, False),
    "missing key": ({"a": 1}, {"a": 1, "b": 2}, False),
    "another number of entries": ([1], [1, 2], False),
}


@pytest.mark.parametrize("name", CASES)
def test_tolerance_is_for_numbers_and_vectors_only(name: str) -> None:
    one, other, agree = CASES[name]
    found = agreement([Ok(one)], [Ok(other)], Tolerance(0.01, 1e-3), "a test")
    assert (found.differ, bool(found.first)) == ((0, False) if agree else (1, True))
