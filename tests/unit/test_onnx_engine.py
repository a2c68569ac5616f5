"""The engine for ONNX models: MLflow's answers without trust, in any company, from several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models import ModelSignature
from mlflow.types import TensorSpec
from onnx import helper
from tests.support.models import seal
from tests.support.onnx_models import (
    FLOAT,
    INT64,
    POSITIONS,
    STRING,
    TEXT_SIGNATURE,
    WORDS,
    columns,
    make,
    save_onnx,
    tensor,
    tensors,
    text_model,
)

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.engine import Engine, predict_items
from likewise.core.errors import RowRefused
from likewise.core.items import Item, Request, Row, Table
from likewise.core.results import Failed, Ok, Result
from likewise.engine.kinds import kind_of
from likewise.engine.plain_values import per_row, plain
from likewise.pipeline.mlmodel import read_model

pytestmark = pytest.mark.slow

NAMES = ("input_ids", "attention_mask")


def bundle_of(model: onnx.ModelProto, folder: Path, *, row_wise: bool = True, **options: Any) -> Bundle:
    save_onnx(model, folder / "model", **options)
    return seal(folder, row_wise=row_wise)


def opened(bundle: Bundle, name: str = "onnx") -> Any:
    return kind_of(name).open(bundle, EngineEntry(name, "native"))


def text(length: int, shift: int = 0) -> tuple[list[int], list[int]]:
    return [(7 * at + shift) % WORDS for at in range(length)], [1] * length


def row(length: int, shift: int = 0) -> Item:
    return Row(NAMES, text(length, shift))


@dataclass(frozen=True)
class Opened:
    engine: Any
    plain: Any
    """The model as `mlflow.pyfunc.load_model` opens it."""


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return _opened(tmp_path_factory.mktemp("signed"), text_model(), signature=TEXT_SIGNATURE)


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return _opened(tmp_path_factory.mktemp("unsigned"), text_model())


def _opened(folder: Path, model: onnx.ModelProto, **options: Any) -> Opened:
    bundle = bundle_of(model, folder, **options)
    return Opened(opened(bundle), mlflow.pyfunc.load_model(str(bundle.model_path)))


def arrays(length: int, shift: int = 0) -> dict[str, np.ndarray]:
    return {name: np.array([values]) for name, values in zip(NAMES, text(length, shift), strict=True)}


def ok(result: Result) -> object:
    assert isinstance(result, Ok), result
    return result.value


# --- texts -----------------------------------------------------------------------------------------------------------

lengths = st.lists(st.tuples(st.integers(1, POSITIONS), st.integers(0, WORDS)), min_size=1, max_size=12)


@pytest.mark.parametrize("signature", ["signed", "unsigned"])
@settings(max_examples=30, deadline=None)
@given(texts=lengths)
def test_texts_of_any_lengths_get_mlflows_answers_in_any_company(
    request: pytest.FixtureRequest, signature: str, texts: list[tuple[int, int]]
) -> None:
    model: Opened = request.getfixturevalue(signature)
    together = predict_items(model.engine, [row(*each) for each in texts])
    for each, result in zip(texts, together, strict=True):
        expected = model.plain.predict(arrays(*each))["logits"][0].tolist()
        assert ok(predict_items(model.engine, [row(*each)])[0]) == {"logits": expected}
        assert ok(result)["logits"] == pytest.approx(expected, rel=1e-5, abs=1e-5)  # type: ignore[index]


@pytest.mark.parametrize("signature", ["signed", "unsigned"])
def test_predict_takes_and_gives_what_mlflow_does(request: pytest.FixtureRequest, signature: str) -> None:
    model: Opened = request.getfixturevalue(signature)
    given_, expected = model.engine.predict(arrays(9)), model.plain.predict(arrays(9))
    assert given_.keys() == expected.keys()
    assert given_["logits"].tobytes() == expected["logits"].tobytes()


BAD: dict[str, tuple[list[int], list[int]]] = {
    "too long": text(POSITIONS + 1),
    "no such word": ([WORDS], [1]),
    "unequal lengths": ([1, 2, 3], [1, 1]),
    "ragged": ([[1, 2], [3]], [1, 1]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("signature", ["signed", "unsigned"])
def test_input_that_fails_fails_alone(
    request: pytest.FixtureRequest, signature: str, bad: tuple[list[int], list[int]]
) -> None:
    engine: Engine = request.getfixturevalue(signature).engine
    alone = [predict_items(engine, [row(5, shift)])[0] for shift in range(2)]
    for _ in range(2):
        first, failed, last = predict_items(engine, [row(5), Row(NAMES, bad), row(5, 1)])
        assert isinstance(failed, Failed)
        assert [first, last] == alone


def test_threads_get_their_own_answers(signed: Opened) -> None:
    texts = [(1 + number % POSITIONS, number % WORDS) for number in range(120)]
    expected = [predict_items(signed.engine, [row(*each)]) for each in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(lambda each: predict_items(signed.engine, [row(*each)]), texts)) == expected


# --- other inputs and outputs ----------------------------------------------------------------------------------------


def identity(kind: int, *axes: int | str) -> onnx.ModelProto:
    return make([helper.make_node("Identity", ["x"], ["y"])], [tensor("x", kind, *axes)], [tensor("y", kind, *axes)])


def sum_of_two() -> onnx.ModelProto:
    parts = [tensor(name, FLOAT, "n") for name in ("a", "b")]
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    return make(nodes, parts, [tensor("sum", FLOAT, "n"), tensor("difference", FLOAT, "n")])


def encoder() -> onnx.ModelProto:
    attributes = {"keys_strings": ["a", "b"], "values_int64s": [1, 2], "default_int64": 0}
    node = helper.make_node("LabelEncoder", ["word"], ["number"], domain="ai.onnx.ml", **attributes)
    return make([node], [tensor("word", STRING, "n", 1)], [tensor("number", INT64, "n", 1)])


def brightness() -> onnx.ModelProto:
    node = helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0)
    return make([node], [tensor("image", FLOAT, "n", 3, 4, 4)], [tensor("mean", FLOAT, "n")])


def classifier(zipmap: bool) -> onnx.ModelProto:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    points = np.random.default_rng(0).normal(size=(60, 2)).astype("float32")
    fitted = LogisticRegression().fit(points, np.where(points[:, 0] > 0, "yes", "no"))
    return to_onnx(fitted, points[:1], options={"zipmap": zipmap}, target_opset=17)


def array_of(dtype: str, *shape: int, name: str | None = None) -> ModelSignature:
    return ModelSignature(tensors(TensorSpec(np.dtype(dtype), shape, name)))


POINTS = [[0.5, -1.25], [-2.0, 3.5], [1e-3, 7.0]]
IMAGES = np.arange(2 * 48, dtype="float32").reshape(2, 3, 4, 4)
CASES: dict[str, tuple[Callable[[], onnx.ModelProto], ModelSignature | None, Any, Table]] = {
    "two inputs, columns": (
        sum_of_two,
        columns("double", "a", "b"),
        pd.DataFrame(POINTS, columns=["a", "b"]),
        Table(("a", "b"), [tuple(point) for point in POINTS]),
    ),
    "two inputs, arrays": (
        sum_of_two,
        ModelSignature(tensors(*(TensorSpec(np.dtype("float32"), (-1,), name) for name in "ab"))),
        {name: np.array(values, "float32") for name, values in zip("ab", zip(*POINTS, strict=True), strict=True)},
        Table(("a", "b"), [tuple(point) for point in POINTS]),
    ),
    "two inputs, no signature": (
        sum_of_two,
        None,
        pd.DataFrame(POINTS, columns=["a", "b"]),
        Table(("a", "b"), [tuple(point) for point in POINTS]),
    ),
    "classifier": (
        lambda: classifier(False),
        array_of("float32", -1, 2),
        np.array(POINTS, "float32"),
        Table(None, [(point,) for point in POINTS]),
    ),
    "classifier, zipmap, columns": (
        lambda: classifier(True),
        columns("double", "a", "b"),
        pd.DataFrame(POINTS, columns=["a", "b"]),
        Table(("a", "b"), [tuple(point) for point in POINTS]),
    ),
    "classifier, zipmap": (
        lambda: classifier(True),
        array_of("float32", -1, 2),
        np.array(POINTS, "float32"),
        Table(None, [(point,) for point in POINTS]),
    ),
    "images": (
        brightness,
        array_of("float32", -1, 3, 4, 4, name="image"),
        {"image": IMAGES},
        Table(("image",), [(image,) for image in IMAGES.tolist()]),
    ),
    "text columns": (
        encoder,
        columns("string", "word"),
        pd.DataFrame({"word": ["a", "b", "other"]}),
        Table(("word",), [("a",), ("b",), ("other",)]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_inputs_and_outputs_of_many_kinds(tmp_path: Path, case: str) -> None:
    make_model, signature, data, table = CASES[case]
    bundle = bundle_of(make_model(), tmp_path, signature=signature)
    engine, reference = opened(bundle), mlflow.pyfunc.load_model(str(bundle.model_path))
    expected = reference.predict(data)
    assert plain(engine.predict(data)) == plain(expected)
    rows = per_row(expected, len(table))
    items = [Row(table.columns, values) for values in table.rows]
    assert [ok(result) for result in predict_items(engine, items)] == rows
    assert [ok(predict_items(engine, [item])[0]) for item in items] == rows
    assert kind_of("onnx").row_wise(read_model(bundle.model_path))


def test_fixed_batch_axis(tmp_path: Path) -> None:
    bundle = bundle_of(identity(FLOAT, 1, 3), tmp_path, row_wise=False, signature=array_of("float32", 1, 3))
    assert not kind_of("onnx").row_wise(read_model(bundle.model_path))
    engine = opened(bundle)
    one, two = (Request(Table(None, [([1.0, 2.0, 3.0],)] * count), None) for count in (1, 2))
    assert [ok(result) for result in predict_items(engine, [one])] == [{"y": [[1.0, 2.0, 3.0]]}]
    (refused,) = predict_items(engine, [two])
    assert isinstance(refused, Failed)
    assert isinstance(refused.error, RowRefused)
