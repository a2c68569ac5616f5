"""Jobs take and give what `mlflow.pyfunc.load_model(...).predict(frame)` does, whatever the model's signature."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.scoring_server import predictions_to_json
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Map
from tests.support.batch.scoring import quarantined, read, run_job, write
from tests.support.models import save_code, seal

from likewise.batch import JobReport, ScoreOptions, score
from likewise.bundles.open import Bundle
from likewise.core.errors import InputInvalid
from likewise.core.items import Row
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.engine.load import open_engine

SUFFIXES = ["csv", "jsonl", "parquet"]
MODEL = """
import typing
import mlflow, numpy as np, pandas as pd, pydantic

class Thing(pydantic.BaseModel):
    name: str
    count: int = 5
    note: typing.Optional[str] = None

class M(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input{hint}, params=None):
        return {answer}

mlflow.models.set_model(M())
"""
SHOWN = "[repr(each) for each in model_input]"


def tensors(dtype: str, *shape: int, names: str | None = None) -> ModelSignature:
    """Tensors of one shape: one for each letter of `names`, or one without a name."""
    return ModelSignature(Schema([TensorSpec(np.dtype(dtype), shape, name) for name in names or [None]]))


def columns(*specs: ColSpec, outputs: Schema | None = None) -> ModelSignature:
    return ModelSignature(Schema(list(specs)), outputs)


ModelOf = Callable[..., Bundle]


@pytest.fixture
def model_of(tmp_path: Path) -> ModelOf:
    """A bundle of a model that returns `answer`."""

    def make(answer: str, signature: ModelSignature | None = None, hint: str = "") -> Bundle:
        folder = tmp_path / "bundle"
        save_code(folder / "model", MODEL.format(answer=answer, hint=hint), signature=signature)
        return seal(folder, row_wise=False)

    return make


def run(bundle: Bundle, source: Path, output: Path, **options: Any) -> JobReport:
    engine = open_engine(bundle, ModelSpec(bundle.digest, trust=True))
    return score(engine, bundle.digest, bundle.signature, source, output, ScoreOptions(**options))


def saved(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    return path


def reference(bundle: Bundle, frame: pd.DataFrame) -> list[Any]:
    """MLflow's predictions, as its server writes them; of a record with one column, the column, as `spark_udf` does."""
    printed = io.StringIO()
    predictions_to_json(mlflow.pyfunc.load_model(str(bundle.model_path)).predict(frame), printed)
    found = json.loads(printed.getvalue())["predictions"]
    return [next(iter(each.values())) if isinstance(each, dict) and len(each) == 1 else each for each in found]


NUMBERS = pd.DataFrame({"z": [1.5, 2.0], "b": [0.25, 0.5], "a": [3.0, 1.0]})
COUNTS = pd.DataFrame({"a": [1, 10], "b": [2, 20]})
LONGS = [ColSpec("long", "a"), ColSpec("long", "b")]
DOUBLE = Schema([ColSpec("double")])
CASES: dict[str, tuple[str, ModelSignature | None, str, pd.DataFrame]] = {
    "no signature": ("model_input['a'] + model_input['b']", None, "", COUNTS),
    "no signature, missing values": (
        "[str(model_input.dtypes.iloc[0])] * len(model_input)",
        None,
        "",
        pd.DataFrame({"a": [1, None, 3]}),
    ),
    "one tensor of all columns": ("model_input.tolist()", tensors("float64", -1, 3), "", NUMBERS),
    "one tensor, one column": ("model_input.tolist()", tensors("float64", -1), "", NUMBERS[["b"]]),
    "named tensors": (
        "model_input['a'] - model_input['z']",
        tensors("float64", -1, names="az"),
        "",
        NUMBERS,
    ),
    "two unnamed columns": (
        "[repr((list(model_input.columns), row)) for row in model_input.to_numpy().tolist()]",
        columns(ColSpec("long"), ColSpec("long")),
        "",
        COUNTS.assign(c=7),
    ),
    "one unnamed column": ("model_input.iloc[:, 0].tolist()", columns(ColSpec("long")), "", COUNTS),
    "objects, flat": (SHOWN, None, ": list[Thing]", pd.DataFrame({"name": ["a", "b"], "count": [1, 2]})),
    "objects, flat, with defaults": (SHOWN, None, ": list[Thing]", pd.DataFrame({"id": [1, 2], "name": ["a", "b"]})),
    "objects, one column": (SHOWN, None, ": list[Thing]", pd.DataFrame({"name": ["a", "b"]})),
    "texts": (SHOWN, None, ": list[str]", pd.DataFrame({"t": ["a", "1"], "u": [1, 2]})),
    "integers": (SHOWN, None, ": list[int]", COUNTS[["a"]]),
    "numbers": (SHOWN, None, ": list[float]", NUMBERS[["b"]]),
    "any": (SHOWN, None, ": list[typing.Any]", COUNTS[["a"]]),
    "series": ("model_input['a'] * 0.5", columns(*LONGS, outputs=DOUBLE), "", COUNTS),
    "series without a name": ("pd.Series([0.5] * len(model_input))", columns(*LONGS, outputs=DOUBLE), "", COUNTS),
    "frame with the column 0": ("pd.DataFrame({0: model_input['a']})", columns(*LONGS, outputs=DOUBLE), "", COUNTS),
    "series of records": ("pd.Series([{'l': 'x', 's': 0.5}] * len(model_input))", None, "", COUNTS),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("case", CASES)
def test_a_job_gives_what_the_loaded_model_gives(tmp_path: Path, model_of: ModelOf, case: str, suffix: str) -> None:
    answer, signature, hint, frame = CASES[case]
    bundle = model_of(answer, signature, hint)
    report = run(bundle, saved(frame, tmp_path / f"in.{suffix}"), tmp_path / "o.jsonl")
    assert report.rows_quarantined == 0, quarantined(tmp_path / "o.jsonl")[0]["cause"]
    assert [row["predictions"] for row in read(tmp_path / "o.jsonl")] == reference(bundle, frame)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_dict_of_arrays_gives_one_entry_a_row(tmp_path: Path, model_of: ModelOf, suffix: str) -> None:
    """As ONNX models answer, whose outputs have unequal ranks."""
    outputs = [TensorSpec(np.dtype("int64"), (-1,), "label"), TensorSpec(np.dtype("float32"), (-1, 2), "probabilities")]
    signature = ModelSignature(Schema([TensorSpec(np.dtype("float64"), (-1, 3))]), Schema(outputs))
    answer = "{'label': np.arange(len(model_input)), 'probabilities': model_input[:, :2].astype('float32')}"
    report = run(model_of(answer, signature), saved(NUMBERS, tmp_path / f"in.{suffix}"), tmp_path / "o.parquet")
    assert read(tmp_path / "o.parquet")[1]["predictions"] == {"label": 1, "probabilities": [2.0, 0.5]}
    assert report.prediction_type == "struct<label: int64, probabilities: list<element: float>>"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_column_may_hold_the_object(tmp_path: Path, model_of: ModelOf, suffix: str) -> None:
    frame = pd.DataFrame({"thing": [{"name": "a", "count": 1}, {"name": "b", "count": 2}]})
    run(model_of(SHOWN, hint=": list[Thing]"), saved(frame, tmp_path / f"in.{suffix}"), tmp_path / "o.csv")
    assert [row["predictions"] for row in read(tmp_path / "o.csv")] == [
        "Thing(name='a', count=1, note=None)",
        "Thing(name='b', count=2, note=None)",
    ]


def test_a_missing_key_stays_missing_and_a_wrong_one_is_the_rows_error(tmp_path: Path, model_of: ModelOf) -> None:
    rows = [{"name": "a"}, {"name": "b", "count": 7, "more": 1}, {"count": 1}, {"name": "d", "count": 1.5}]
    source = write(tmp_path / "in.jsonl", [*rows, {"name": "e", "note": None}])
    run(model_of(SHOWN, hint=": list[Thing]"), source, tmp_path / "o.csv")
    assert [row["predictions"] for row in read(tmp_path / "o.csv")] == [
        "Thing(name='a', count=5, note=None)",
        "Thing(name='b', count=7, note=None)",
        "Thing(name='e', count=5, note=None)",
    ]
    missing, wrong = quarantined(tmp_path / "o.csv")
    assert "Field required" in missing["cause"]
    assert wrong["cause"].startswith("row 4, column `count`: expected a whole number")


def test_a_map_takes_all_columns_of_a_row(tmp_path: Path) -> None:
    spec = {"type": "map", "values": {"type": "long"}}
    signature = Signature.parse({"inputs": [spec]})
    for suffix in SUFFIXES:
        seen: list[Row] = []
        source = write(tmp_path / f"in.{suffix}", [{"a": 1, "b": 2}, {"a": 3, "b": 4}])
        run_job(source, tmp_path / f"o.{suffix}", lambda row: seen.append(row) or 0, signature=signature)  # noqa: B023
        assert seen == [Row(None, ({"a": 1, "b": 2},)), Row(None, ({"a": 3, "b": 4},))]


MATRIX = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}
VECTOR = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}
CUBE = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2, 2]}}
WIDE = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 9]}}
THING = {"type": "object", "properties": {"name": {"type": "string", "required": True}}}


@pytest.mark.parametrize(
    ("inputs", "cause", "remedy"),
    [
        ([MATRIX], "takes 2 values per row, but", "--column a=0 --column b=1"),
        ([VECTOR], "takes one value per row, but", "--column a=0"),
        ([CUBE], r"takes an array of shape \(2, 2\) per row, but", "--column a=0"),
        ([WIDE], "takes 9 values per row, but", "9 columns"),
        ([THING], "none of the model's fields `name`", "--column a=name"),
        ([{"type": "long"}] * 4, "takes 4 columns, but", "add the missing columns"),
    ],
)
def test_columns_that_mlflow_refuses_are_refused(
    tmp_path: Path, inputs: list[dict[str, object]], cause: str, remedy: str
) -> None:
    source = write(tmp_path / "in.csv", [{"a": "1", "b": "2", "c": "3"}])
    with pytest.raises(InputInvalid, match=cause) as caught:
        run_job(source, tmp_path / "o.csv", signature=Signature.parse({"inputs": inputs}))
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("inputs", "column", "expected"),
    [
        ([MATRIX], {"c": "1", "a": "0"}, Row(None, ([1.0, 3.0],))),
        ([VECTOR], {"b": "0"}, Row(None, (2,))),
        ([{"type": "string"}], {"b": "x"}, Row(None, ("2",))),
        ([THING], {"c": "name"}, Row(None, ({"name": "3"},))),
        ([{"type": "long"}] * 2, {"c": "0", "a": "1"}, Row(("c", "a"), (3, 1))),
    ],
)
def test_the_columns_of_a_model_without_names_can_be_chosen(
    tmp_path: Path, inputs: list[dict[str, object]], column: dict[str, str], expected: Row
) -> None:
    seen: list[Row] = []
    source = write(tmp_path / "in.csv", [{"a": "1", "b": "2", "c": "3"}])
    signature = Signature.parse({"inputs": inputs})
    run_job(source, tmp_path / "o.csv", lambda row: seen.append(row) or 0, signature=signature, column=column)
    assert seen == [expected]


def test_types_of_all_formats_are_stated(tmp_path: Path, model_of: ModelOf) -> None:
    outputs = Schema([ColSpec(Map(DataType.double), "m")])
    bundle = model_of("[{'m': {'x': 0.5}}] * len(model_input)", ModelSignature(Schema(LONGS), outputs))
    report = run(bundle, saved(COUNTS, tmp_path / "in.csv"), tmp_path / "o.parquet")
    assert report.prediction_type == "map<string, double>"
    assert pq.read_table(tmp_path / "o.parquet")["predictions"].to_pylist() == [[("x", 0.5)]] * 2
