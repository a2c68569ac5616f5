"""ONNX models in bf16: only within the tolerance that the user states, and failures as those of fp32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.models import seal
from tests.support.onnx_models import POSITIONS, TEXT_SIGNATURE, WORDS, save_onnx, text_model
from tests.support.waiting import until

import likewise
from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.engine import predict_items
from likewise.core.errors import EngineUnavailable
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok
from likewise.engine import onnx_bf16
from likewise.engine.engine_options import TOLERANT, CompileOptions
from likewise.engine.kinds import CompileRequest, kind_of
from likewise.engine.openvino_calls import runtime
from likewise.pipeline.mlmodel import read_model

pytestmark = pytest.mark.slow

NAMES = ("input_ids", "attention_mask")
EXAMPLE = {name: np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]) for name in NAMES}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logged") / "model"
    return save_onnx(text_model(), folder, signature=TEXT_SIGNATURE, input_example=EXAMPLE)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    save_onnx(text_model(), folder / "model", signature=TEXT_SIGNATURE, input_example=EXAMPLE)
    return seal(folder, row_wise=True)


@pytest.fixture
def has_bf16() -> bool:
    return "BF16" in runtime().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compiled(bundle: Bundle, tmp_path: Path, **options: Any) -> tuple[tuple[EngineEntry, ...], dict[str, Any]]:
    request = CompileRequest(CompileOptions(**options), None, read_model(bundle.model_path), tmp_path, lambda _: None)
    result = kind_of("onnx-bf16").compile(bundle, request)
    return result.entries, dict(result.measured)


def test_nothing_is_offered_without_a_tolerance(bundle: Bundle, tmp_path: Path) -> None:
    assert compiled(bundle, tmp_path) == ((), {})


def test_tolerance_decides(bundle: Bundle, tmp_path: Path, has_bf16: bool) -> None:
    if not has_bf16:
        with pytest.raises(EngineUnavailable, match="this CPU has no bf16"):
            compiled(bundle, tmp_path, tolerance=0.5)
        return
    entries, measured = compiled(bundle, tmp_path, tolerance=0.5)
    assert entries == (EngineEntry("onnx-bf16", TOLERANT),)
    difference = measured["bf16"]["difference"]
    assert 0 < difference < 0.05
    assert measured["bf16"] == {"tolerance": 0.5, "difference": difference, "rows": 2}
    with pytest.raises(EngineUnavailable, match=r"2 example rows by up to .* more than the tolerance of 1e-06"):
        compiled(bundle, tmp_path, tolerance=1e-6)


def row(length: int, shift: int = 0) -> Item:
    return Row(NAMES, ([(7 * at + shift) % WORDS for at in range(length)], [1] * length))


@pytest.fixture
def engines(bundle: Bundle, has_bf16: bool) -> Iterator[tuple[Any, Any]]:
    exact = kind_of("onnx").open(bundle, EngineEntry("onnx", "native"))
    if has_bf16:
        fast = kind_of("onnx-bf16").open(bundle, EngineEntry("onnx-bf16", TOLERANT))
    else:
        with pytest.raises(EngineUnavailable, match="this CPU has no bf16"):
            kind_of("onnx-bf16").open(bundle, EngineEntry("onnx-bf16", TOLERANT))
        fast = exact
    yield fast, exact
    fast.close()
    exact.close()


BAD = {
    "too long": Row(NAMES, ([1] * (POSITIONS + 1), [1] * (POSITIONS + 1))),
    "unequal lengths": Row(NAMES, ([1, 2, 3], [1, 1])),
    "no such word": Row(NAMES, ([WORDS], [1])),
}


def test_failures_are_those_of_fp32_and_later_answers_are_right(
    engines: tuple[Any, Any], has_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, exact = engines
    rows = [row(length, length) for length in (1, 5, POSITIONS)]
    before = [predict_items(fast, [each])[0] for each in rows]
    for bad in BAD.values():
        for engine in engines:
            assert isinstance(predict_items(engine, [bad])[0], Failed)
        for each in rows:  # by ONNX Runtime, until the model is compiled again
            (result,), (expected,) = predict_items(fast, [each]), predict_items(exact, [each])
            assert isinstance(result, Ok)
            assert isinstance(expected, Ok)
            largest = max(map(abs, expected.value["logits"]))
            assert result.value["logits"] == pytest.approx(expected.value["logits"], abs=0.05 * largest)
    monkeypatch.setattr(onnx_bf16, "PAUSE_S", 0.0)
    until(lambda: [predict_items(fast, [each])[0] for each in rows] == before)
    if has_bf16:
        assert before != [predict_items(exact, [each])[0] for each in rows]


def test_bundle_runs_the_faster_one_and_shows_what_it_changes(model: Path, tmp_path: Path, has_bf16: bool) -> None:
    lines: list[str] = []
    made = likewise.bundle(model, tmp_path / "made", compiling=CompileOptions(tolerance=0.5), report=lines.append)
    labels = {f"{each.name}/{each.precision}" for each in made.manifest.engines}
    if not has_bf16:
        assert labels == {"onnx/native"}
        assert any("this CPU has no bf16" in line for line in lines)
        return
    assert {"onnx/native", "onnx-bf16/bf16"} <= labels
    assert any(line.startswith("bf16 changes the numbers for 2 example rows") for line in lines)
    assert likewise.open_bundle(made.path, precision="bf16").engine().spec.label == "onnx-bf16/bf16"
    assert likewise.open_bundle(made.path, precision="fp32").engine().spec.label == "onnx/native"
