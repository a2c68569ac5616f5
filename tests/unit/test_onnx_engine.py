"""The engine for ONNX models: MLflow's answers without trust, in any company, from several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models import ModelSignature
from mlflow.types import TensorSpec
from onnx import helper
from starlette.testclient import TestClient
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
from tests.support.waiting import until

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.engine import Engine, predict_items
from likewise.core.errors import ModelInvalid, RowRefused
from likewise.core.items import Item, Request, Row, Table
from likewise.core.results import Failed, Ok, Result
from likewise.engine.kinds import kind_of
from likewise.engine.onnx_file import read_onnx
from likewise.engine.plain_values import per_row, plain
from likewise.pipeline.mlmodel import read_model
from likewise.server.app import create_app
from likewise.serving import served_model

pytestmark = pytest.mark.slow

NAMES = ("input_ids", "attention_mask")


def bundle_of(model: onnx.ModelProto, folder: Path, *, row_wise: bool = True, **options: Any) -> Bundle:
    save_onnx(model, folder / "model", **options)
    return seal(folder, row_wise=row_wise)


def opened(bundle: Bundle) -> Any:
    return kind_of("onnx").open(bundle, EngineEntry("onnx", "native"))


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
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("texts")
    return {
        "signed": bundle_of(text_model(), folder / "signed", signature=TEXT_SIGNATURE),
        "unsigned": bundle_of(text_model(), folder / "unsigned"),
    }


VARIANTS = ("signed 2", "unsigned 2", "signed 1")


@pytest.fixture(scope="module", params=VARIANTS)
def texts(request: pytest.FixtureRequest, bundles: dict[str, Bundle]) -> Opened:
    """The model of texts, with one thread and with two."""
    signature, threads = request.param.split()
    bundle = bundles[signature]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", threads)
        engine = opened(bundle)
    assert engine.spec.slots == int(threads)
    return Opened(engine, mlflow.pyfunc.load_model(str(bundle.model_path)))


def arrays(length: int, shift: int = 0) -> dict[str, np.ndarray]:
    return {name: np.array([values]) for name, values in zip(NAMES, text(length, shift), strict=True)}


def ok(result: Result) -> object:
    assert isinstance(result, Ok), result
    return result.value


# --- texts -----------------------------------------------------------------------------------------------------------

lengths = st.lists(st.tuples(st.integers(1, POSITIONS), st.integers(0, WORDS)), min_size=1, max_size=12)


@settings(max_examples=30, deadline=None)
@given(many=lengths)
def test_texts_of_any_lengths_get_mlflows_answers_in_any_company(texts: Opened, many: list[tuple[int, int]]) -> None:
    together = predict_items(texts.engine, [row(*each) for each in many])
    for each, result in zip(many, together, strict=True):
        expected = texts.plain.predict(arrays(*each))["logits"][0].tolist()
        (alone,) = predict_items(texts.engine, [row(*each)])
        assert ok(result)["logits"] == pytest.approx(expected, rel=1e-5, abs=1e-5)  # type: ignore[index]
        assert ok(alone) == {"logits": expected}


def test_predict_takes_and_gives_what_mlflow_does(texts: Opened) -> None:
    result, expected = texts.engine.predict(arrays(9)), texts.plain.predict(arrays(9))
    assert result.keys() == expected.keys()
    assert result["logits"].dtype == expected["logits"].dtype
    assert result["logits"].tobytes() == expected["logits"].tobytes()


BAD: dict[str, tuple[list[int], list[int]]] = {
    "too long": text(POSITIONS + 1),
    "no such word": ([WORDS], [1]),
    "unequal lengths": ([1, 2, 3], [1, 1]),
    "ragged": ([[1, 2], [3]], [1, 1]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_input_that_fails_fails_alone(texts: Opened, bad: tuple[list[int], list[int]]) -> None:
    engine: Engine = texts.engine
    alone = [predict_items(engine, [row(5, shift)])[0] for shift in range(2)]
    for _ in range(2):
        first, failed, last = predict_items(engine, [row(5), Row(NAMES, bad), row(5, 1)])
        assert isinstance(failed, Failed)
        assert [first, last] == alone


failing = st.sampled_from(list(BAD.values()))
good = st.builds(text, st.integers(1, POSITIONS), st.integers(0, WORDS))


@settings(max_examples=40, deadline=None)
@given(many=st.lists(st.one_of(good, failing), min_size=2, max_size=12))
def test_answers_after_failures_are_right(texts: Opened, many: list[tuple[list[int], list[int]]]) -> None:
    """One after the other, as a runtime may keep something of an inference that failed."""
    for values in many:
        (result,) = predict_items(texts.engine, [Row(NAMES, values)])
        assert isinstance(result, Failed) == (values in BAD.values())
        if isinstance(result, Ok):
            expected = texts.plain.predict({name: np.array([each]) for name, each in zip(NAMES, values, strict=True)})
            assert result.value["logits"] == pytest.approx(expected["logits"][0], rel=1e-5, abs=1e-5)  # type: ignore[index]


def test_threads_get_their_own_answers(texts: Opened) -> None:
    many = [(1 + number % POSITIONS, number % WORDS) for number in range(120)]
    expected = [predict_items(texts.engine, [row(*each)]) for each in many]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(lambda each: predict_items(texts.engine, [row(*each)]), many)) == expected


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


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("form", ["inputs", "instances"])
def test_server_answers_in_the_form_of_mlflows(bundles: dict[str, Bundle], count: int, form: str) -> None:
    bundle = bundles["signed"]
    rows = [dict(zip(NAMES, text(5, shift), strict=True)) for shift in range(count)]
    by_name = {name: [each[name] for each in rows] for name in NAMES}
    body = {"inputs": by_name} if form == "inputs" else {"instances": rows}
    expected = mlflow.pyfunc.load_model(str(bundle.model_path)).predict({n: np.array(v) for n, v in by_name.items()})
    with TestClient(create_app(lambda: opened(bundle), served_model(bundle))) as client:
        until(lambda: client.get("/ready").status_code == 200)
        (predictions,) = client.post("/invocations", json=body).raise_for_status().json().values()
    assert predictions.keys() == {"logits"}
    assert np.array(predictions["logits"]) == pytest.approx(expected["logits"], rel=1e-5, abs=1e-5)


# --- what is not run without trust -----------------------------------------------------------------------------------


def edited(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> Path:
    """The bundle's model after `change` of the document in its MLmodel file."""
    path = bundle.model_path / "MLmodel"
    document = yaml.safe_load(path.read_text())
    change(document)
    path.write_text(yaml.safe_dump(document))
    return bundle.model_path


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "code": lambda m: m["flavors"]["python_function"].update(code="code"),
    "own loader": lambda m: m["flavors"]["python_function"].update(loader_module="loader"),
    "options of a provider": lambda m: m["flavors"]["onnx"].update(
        providers=[["TensorrtExecutionProvider", {"trt_extra_plugin_lib_paths": "plugin.so"}]]
    ),
    "session options": lambda m: m["flavors"]["onnx"].update(
        onnx_session_options={"extra_session_config": {"session.model_external_initializers_file_folder_path": "/"}}
    ),
    "file elsewhere": lambda m: [flavor.update(data="../model.onnx") for flavor in m["flavors"].values()],
    "two files": lambda m: m["flavors"]["onnx"].update(data="other.onnx"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_model_that_may_run_code_is_left_to_pyfunc(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    bundle = bundle_of(sum_of_two(), tmp_path)
    facts = read_model(edited(bundle, change))
    assert not [kind for kind in facts.kinds() if kind.name == "onnx"]
    with pytest.raises(ModelInvalid, match="not of the ONNX flavor"):  # a manifest that claims otherwise
        opened(bundle)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", ""])
@pytest.mark.parametrize("nested", [False, True], ids=["weights", "constant in a branch"])
def test_weights_outside_of_the_model_are_refused(tmp_path: Path, location: str, nested: bool) -> None:
    model = sum_of_two()
    weights = onnx.TensorProto(name="w", data_type=FLOAT, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value=location)
    if nested:
        constant = helper.make_node("Constant", [], ["c"])
        constant.attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=weights))
        branch = helper.make_graph([constant], "branch", [], [tensor("c", FLOAT, 1)])
        condition = helper.make_node("If", ["a"], ["ignored"], then_branch=branch, else_branch=branch)
        model.graph.node.append(condition)
    else:
        model.graph.initializer.append(weights)
    bundle = bundle_of(sum_of_two(), tmp_path)
    (tmp_path / "secret").write_bytes(b"\0" * 4)
    (bundle.model_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelInvalid, match="outside of its folder"):
        opened(bundle)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_damaged_file_is_an_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    good = text_model().SerializeToString()
    cut = data.draw(st.integers(0, len(good) - 1))
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    path.write_bytes(good[:cut] + data.draw(st.binary(max_size=8)))
    with suppress(ModelInvalid):
        read_onnx(path)


def test_weights_in_another_file_of_the_model_are_read(tmp_path: Path) -> None:
    options = {"signature": TEXT_SIGNATURE, "save_as_external_data": True, "size_threshold": 100}
    bundle = bundle_of(text_model(), tmp_path, **options)
    found = read_onnx(bundle.model_path / "model.onnx")
    assert len(found.external) == 1
    assert (found.inputs, found.outputs) == (dict.fromkeys(NAMES, ("batch", "length")), {"logits": ("batch", 3)})
    assert isinstance(predict_items(opened(bundle), [row(4)])[0], Ok)
