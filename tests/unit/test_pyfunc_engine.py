"""The pyfunc engine on real MLflow models: one result per item, MLflow's own predictions, failing rows isolated."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc.scoring_server import infer_and_parse_data, predictions_to_json
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from tests.support.models import TEXT, save_code, seal

from likewise.bundles.open import Bundle, open_bundle
from likewise.core.casts import Nanoseconds
from likewise.core.engine import predict_items
from likewise.core.errors import CodeNotTrusted, ModelFailed, ModelInvalid, ModelRaised, RowRefused
from likewise.core.items import Item, Request, Row, Table
from likewise.core.results import Failed, Ok, Result
from likewise.core.spec import ModelSpec
from likewise.engine.load import open_engine
from likewise.engine.plain_values import per_row, plain
from likewise.engine.pyfunc import PyfuncEngine

NUMBERS = Schema([ColSpec("long", "n"), ColSpec("double", "x", required=False)])


def make_bundle(folder: Path, predict: str, signature: ModelSignature | None = None, *, hint: str = "") -> Bundle:
    """A bundle of a model whose `predict(model_input, params)` has the body `predict`."""
    code = (
        "import mlflow, numpy as np, pandas as pd\n"
        "class M(mlflow.pyfunc.PythonModel):\n"
        f"    calls = []\n    def predict(self, context, model_input{hint}, params=None):\n"
        + "".join(f"        {line}\n" for line in dedent(predict).strip().splitlines())
        + "mlflow.models.set_model(M())\n"
    )
    save_code(folder / "bundle" / "model", code, signature=signature)
    return seal(folder / "bundle", row_wise=False)


def load(bundle: Bundle) -> PyfuncEngine:
    engine = open_engine(bundle, ModelSpec(bundle.digest, trust=True))
    assert isinstance(engine, PyfuncEngine)
    return engine


def values(results: Sequence[Result]) -> list[object]:
    assert not [r.error.cause for r in results if isinstance(r, Failed)]
    return [r.value for r in results if isinstance(r, Ok)]


def texts(*rows: object) -> list[Item]:
    return list(Table(("text",), [(row,) for row in rows]).split())


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> PyfuncEngine:
    body = """
    self.calls.append(len(model_input))
    if model_input["text"].str.contains("bad").any():
        raise ValueError("bad text")
    return pd.DataFrame({"text": model_input["text"].str.upper()})
    """
    return load(make_bundle(tmp_path_factory.mktemp("failing"), body, ModelSignature(TEXT, TEXT)))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_exactly_the_bad_rows_fail(failing: PyfuncEngine, bad_rows: list[bool]) -> None:
    calls = failing._model.unwrap_python_model().calls
    calls.clear()
    results = predict_items(failing, texts(*(f"{'bad' if bad else 'row'} {i}" for i, bad in enumerate(bad_rows))))
    assert [isinstance(r, Failed) for r in results] == bad_rows
    assert all(r.value == {"text": f"ROW {i}"} for i, r in enumerate(results) if isinstance(r, Ok))
    assert all(
        isinstance(r.error, RowRefused) and "bad text" in r.error.cause for r in results if isinstance(r, Failed)
    )
    assert len(calls) <= 2 * len(bad_rows)
    if not any(bad_rows):
        assert calls == [len(bad_rows)]


def test_rows_that_violate_the_signature_do_not_affect_others(tmp_path: Path) -> None:
    engine = load(make_bundle(tmp_path, "return model_input['n'] * 2", ModelSignature(NUMBERS)))
    rows = list(Table(("n", "x"), [(1, 0.5), ("one", 1.0), (2, None), (2**70, 0.0), (None, 0.0), (3, 1.5)]).split())
    results = predict_items(engine, rows)
    assert [isinstance(r, Failed) for r in results] == [False, True, False, True, True, False]
    assert all(isinstance(r.error, RowRefused) for r in results if isinstance(r, Failed))
    assert [r.value for r in results if isinstance(r, Ok)] == [{"n": 2}, {"n": 4}, {"n": 6}]


def test_missing_required_column_is_reported_and_other_differences_are_ignored(tmp_path: Path) -> None:
    engine = load(make_bundle(tmp_path, "return model_input['n'].tolist()", ModelSignature(NUMBERS)))
    missing, without_optional, with_extra = predict_items(
        engine, [Row(("x",), (1.0,)), Row(("n",), (7,)), Row(("n", "x", "more"), (8, 1.0, "?"))]
    )
    assert isinstance(missing, Failed)
    assert "'n'" in missing.error.cause
    assert values([without_optional, with_extra]) == [7, 8]


def test_rows_with_different_params_are_separate_calls(tmp_path: Path) -> None:
    params = ParamSchema([ParamSpec("times", DataType.long, 1)])
    body = "return [len(model_input) * 100 + t * params['times'] for t in model_input['n']]"
    engine = load(make_bundle(tmp_path, body, ModelSignature(Schema([ColSpec("long", "n")]), None, params)))
    rows = [Row(("n",), (n,), {"times": times} if times else {}) for n, times in [(1, 2), (2, None), (3, 2), (4, 5)]]
    assert values(predict_items(engine, rows)) == [202, 102, 206, 120]


def test_request_is_one_call_and_keeps_the_models_output_shape(tmp_path: Path) -> None:
    engine = load(make_bundle(tmp_path, "return {'n': len(model_input), 'mean': np.float64(model_input['n'].mean())}"))
    table = Table(("n",), [(1,), (2,), (6,)])
    assert values(predict_items(engine, [Request(table), Request(Table(("n",), [(5,)]))])) == [
        {"n": 3, "mean": 3.0},
        {"n": 1, "mean": 5.0},
    ]


@pytest.mark.parametrize("body", ["return model_input[:1]", "return 'one'", "return {'a': [1]}", "return None"])
def test_wrong_number_of_predictions_is_model_failed(tmp_path: Path, body: str) -> None:
    results = predict_items(load(make_bundle(tmp_path, body)), texts("a", "b", "c"))
    errors = [r.error for r in results if isinstance(r, Failed)]
    assert len(errors) == 3
    assert all(isinstance(e, ModelFailed) and "for 3 rows" in e.cause for e in errors)


@pytest.mark.parametrize(
    "expression",
    [
        "pd.DataFrame({'a': [1, 2], 'b': ['x', None]})",
        "pd.DataFrame([[1.5, 2.0], [3.0, 4.0]])",
        "pd.Series([1, 2], name='s')",
        "np.array([[1.0, 2.0], [3.0, 4.0]], dtype='float32')",
        "[np.int64(1), 'x']",
        "[{'label': 'a', 'score': np.float32(0.5)}, {'label': 'b', 'score': 1.0}]",
    ],
)
def test_predictions_have_the_same_shape_as_mlflows_server(expression: str) -> None:
    raw = eval(expression, {"pd": pd, "np": np})  # noqa: S307  from the list above
    printed = io.StringIO()
    predictions_to_json(raw, printed)
    expected = json.loads(printed.getvalue())["predictions"]
    assert json.loads(json.dumps(plain(raw))) == expected
    assert json.loads(json.dumps(per_row(raw, 2))) == expected


def test_datetimes_and_missing_values_become_plain() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6)
    assert plain(np.array([moment], dtype="datetime64[ns]")) == [moment]
    assert plain(pd.DataFrame({"t": [pd.Timestamp(moment), pd.NaT]})) == [{"t": moment}, {"t": None}]
    assert type(plain(pd.Timestamp(moment))) is datetime
    assert plain([pd.NA, np.bool_(True), b"\x00", {1: np.int8(3)}]) == [None, True, b"\x00", {"1": 3}]
    with pytest.raises(ModelFailed, match="no JSON form"):
        plain(object())


@pytest.mark.parametrize(
    "predictions",
    [
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame([[1, 2]], columns=["1", 1]),
        {"1": [1], 1: [2]},
        [{"1": 1, 1: 2}],
    ],
)
def test_columns_of_the_same_name_are_an_error_because_a_record_would_lose_one(predictions: Any) -> None:
    with pytest.raises(ModelFailed, match="two columns named"):
        per_row(predictions, 1)


def test_mapping_of_columns_becomes_records() -> None:
    assert per_row({"label": np.array(["a", "b"]), "score": [1, 2]}, 2) == [
        {"label": "a", "score": 1},
        {"label": "b", "score": 2},
    ]


ECHO = """
if isinstance(model_input, dict):
    return [{k: [str(v.dtype), v.shape[1:]] for k, v in model_input.items()}] * len(next(iter(model_input.values())))
if isinstance(model_input, pd.DataFrame):
    return [{str(c): type(v).__name__ for c, v in record.items()} for record in model_input.to_dict(orient="records")]
if isinstance(model_input, np.ndarray):
    return [[str(model_input.dtype), model_input.shape[1:]]] * len(model_input)
return [[type(model_input).__name__, v] for v in model_input]
"""


@pytest.mark.parametrize(
    ("schema", "table", "body"),
    [
        (TEXT, Table(("text",), [("a",), ("b",)]), {"dataframe_split": {"columns": ["text"], "data": [["a"], ["b"]]}}),
        (TEXT, Table(None, [("a",), ("b",)]), {"inputs": ["a", "b"]}),
        (None, Table(None, [(1,), (2,)]), {"inputs": [1, 2]}),
        (None, Table(("p", "q"), [(1, "x")]), {"dataframe_split": {"columns": ["p", "q"], "data": [[1, "x"]]}}),
        (
            Schema([TensorSpec(np.dtype("float32"), (-1, 2))]),
            Table(None, [([1.0, 2.0],), ([3.0, 4.0],)]),
            {"inputs": [[1.0, 2.0], [3.0, 4.0]]},
        ),
        (
            Schema([TensorSpec(np.dtype("int32"), (-1, 2), "ids"), TensorSpec(np.dtype("float32"), (-1,), "w")]),
            Table(("ids", "w"), [([1, 2], 0.5), ([3, 4], 1.5)]),
            {"instances": [{"ids": [1, 2], "w": 0.5}, {"ids": [3, 4], "w": 1.5}]},
        ),
        (
            Schema([ColSpec("datetime", "t"), ColSpec("binary", "b"), ColSpec("boolean", "f")]),
            Table(("t", "b", "f"), [(datetime(2026, 1, 2, 3, 4, 5), b"\x00\xff", True)]),
            {"dataframe_split": {"columns": ["t", "b", "f"], "data": [["2026-01-02T03:04:05", "AP8=", True]]}},
        ),
    ],
)
def test_model_gets_the_same_input_as_from_mlflows_server(
    tmp_path: Path, schema: Schema | None, table: Table, body: dict[str, Any]
) -> None:
    bundle = make_bundle(tmp_path, ECHO, None if schema is None else ModelSignature(schema))
    expected = mlflow.pyfunc.load_model(bundle.model_path).predict(infer_and_parse_data(body, schema))
    engine = load(bundle)
    assert values(predict_items(engine, list(table.split()))) == plain(expected)
    assert values(predict_items(engine, [Request(table)])) == [plain(expected)]


def test_model_with_a_type_hint_gets_a_list(tmp_path: Path) -> None:
    engine = load(make_bundle(tmp_path, "return [t.upper() for t in model_input]", hint=": list[str]"))
    assert values(predict_items(engine, list(Table(None, [("a",), ("b",)]).split()))) == ["A", "B"]


def test_input_that_mlflow_rejects_is_refused_and_does_not_count_as_a_failing_model(tmp_path: Path) -> None:
    engine = load(make_bundle(tmp_path, "return model_input", hint=": list[int]"))
    good, *bad = predict_items(engine, list(Table(None, [(1,), ("x",), (0.5,)]).split()))
    assert values([good]) == [1]
    assert [type(r.error) for r in bad if isinstance(r, Failed)] == [RowRefused, RowRefused]
    assert "list[int]" in bad[0].error.cause if isinstance(bad[0], Failed) else False


def test_mlflows_exception_from_the_models_own_code_is_the_models(tmp_path: Path) -> None:
    body = "from mlflow.exceptions import MlflowException\nraise MlflowException('no')"
    (result,) = predict_items(load(make_bundle(tmp_path, body)), texts("a"))
    assert isinstance(result, Failed)
    assert isinstance(result.error, ModelRaised)


@pytest.mark.parametrize("data", [np.array([[1, 0.5]]), pd.DataFrame({"x": [0.5]}), 5])
def test_predict_refuses_what_does_not_fit_the_signature(tmp_path: Path, data: Any) -> None:
    engine = load(make_bundle(tmp_path, "return model_input", ModelSignature(NUMBERS)))
    with pytest.raises(RowRefused, match=r"schema|lacks the column 'n'"):
        engine.predict(data)


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        ("list[float]", None, "nan"),
        ("list[list[float]]", [1.5, None], "[1.5, nan]"),
        (
            "list[datetime.datetime]",
            Nanoseconds.since_epoch(1_000_000_001),
            "Timestamp('1970-01-01 00:00:01.000000001')",
        ),
    ],
)
def test_element_of_a_type_hint_is_exact(tmp_path: Path, hint: str, value: object, expected: str) -> None:
    code = f"""
        import datetime, mlflow
        class M(mlflow.pyfunc.PythonModel):
            def predict(self, model_input: {hint}, params=None):
                return list(map(repr, model_input))
        mlflow.models.set_model(M())
    """
    save_code(tmp_path / "bundle" / "model", code)
    engine = load(seal(tmp_path / "bundle"))
    assert values(predict_items(engine, [Row(None, (value,))])) == [expected]


@pytest.mark.slow
def test_sklearn_model_gives_mlflows_predictions(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.5, 0.25, 0.0]})
    model = LinearRegression().fit(frame, [1.0, 2.0, 4.0])
    mlflow.sklearn.save_model(model, tmp_path / "b" / "model", signature=infer_signature(frame), pip_requirements=[])
    bundle = seal(tmp_path / "b", row_wise=False)
    table = Table(("a", "b"), list(frame.itertuples(index=False, name=None)))
    assert values(predict_items(load(bundle), list(table.split()))) == pytest.approx(model.predict(frame).tolist())


def test_opening_needs_trust_and_does_not_modify_the_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, "return model_input['text'].tolist()")
    with pytest.raises(CodeNotTrusted):
        open_engine(open_bundle(bundle.path), ModelSpec(bundle.digest))
    engine = load(open_bundle(bundle.path))
    assert values(predict_items(engine, texts("a"))) == ["a"]
    engine.close()
    open_bundle(bundle.path)


def test_model_that_does_not_load_is_reported(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, "return 1")
    code = next((bundle.path / "model").glob("code.py"))
    code.write_text("raise ZeroDivisionError('broken on purpose')\n")
    with pytest.raises(ModelInvalid, match="broken on purpose"):
        load(bundle)


def test_calls_never_overlap(tmp_path: Path) -> None:
    body = """
    self.calls.append("in")
    assert self.calls.count("in") == self.calls.count("out") + 1
    out = model_input["text"].str.len().tolist()
    self.calls.append("out")
    return out
    """
    engine = load(make_bundle(tmp_path, body))
    results: list[Result] = []
    threads = [
        threading.Thread(target=lambda: results.extend(predict_items(engine, texts("a", "bb")))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values(results) == [1, 2] * 8


def test_engine_properties(failing: PyfuncEngine) -> None:
    spec = failing.spec
    assert (spec.label, spec.thread_safe, spec.pure, spec.row_wise) == ("pyfunc/native", False, False, False)
    prepared = failing.prepare([*texts("a", "a", "b"), Request(Table(("text",), [("a",), ("b",)]))])
    keys = [work.key for work in prepared if not isinstance(work, Failed)]
    assert (keys[0] == keys[1], len(set(keys))) == (True, 3)
    assert [work.cost for work in prepared if not isinstance(work, Failed)] == [1, 1, 1, 2]
