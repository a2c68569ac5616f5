"""Differential tests: valid requests are read as by MLflow's own parser and schema enforcement."""

import base64
import io
import json
import math
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models import ModelSignature
from mlflow.models.utils import _enforce_params_schema, _enforce_schema
from mlflow.pyfunc.scoring_server import _split_data_and_params, infer_and_parse_data, parse_csv_input
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, ColSpec, DataType, Object, Property

from likewise.core.errors import WrongUsage
from likewise.core.items import Table
from likewise.core.signature import Signature
from likewise.wire import decode
from likewise.wire.params import ParamsFitter


def likewise_signature(signature: ModelSignature) -> Signature:
    return Signature.parse(signature.to_dict())


def plain(value: Any) -> Any:
    """Convert numpy and pandas values to plain Python; missing values become None."""
    if isinstance(value, (list, np.ndarray)):
        return [plain(element) for element in value]
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, (pd.Timestamp, np.datetime64)):
        return pd.Timestamp(value).to_pydatetime()
    if isinstance(value, np.generic):
        value = value.item()
    return None if value is pd.NaT or (isinstance(value, float) and math.isnan(value)) else value


def mlflow_reads(body: str, signature: ModelSignature) -> tuple[list[dict[str, Any]], Any]:
    data, params = _split_data_and_params(body)
    frame = _enforce_schema(infer_and_parse_data(data, signature.inputs), signature.inputs)
    records = [{key: plain(value) for key, value in record.items()} for record in frame.to_dict(orient="records")]
    return records, _enforce_params_schema(params, signature.params)


def likewise_reads(body: str, signature: ModelSignature) -> tuple[list[dict[str, Any]], Any]:
    call = decode(body.encode(), "application/json", likewise_signature(signature))
    return records(call.table), call.params


def records(table: Table) -> list[dict[str, Any]]:
    assert table.columns is not None
    return [dict(zip(table.columns, plain(list(row)), strict=True)) for row in table.rows]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)).map(
    lambda moment: moment.isoformat(timespec="microseconds")  # pandas rejects a column with several formats
)
BASE64 = st.binary(max_size=6).map(lambda raw: base64.b64encode(raw).decode())
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=6)
LONGS = st.integers(-(2**62), 2**62)
DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS,
    "long": LONGS,
    "integer": st.integers(-(2**31), 2**31 - 1),
    "double": DOUBLES | st.integers(-(2**50), 2**50),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "datetime": MOMENTS,
    "binary": BASE64,
}
NULLS = {"string", "double", "float"}
FORMS = ("split", "records", "bare columns", "input columns", "input records", "instances", "instance columns")


@st.composite
def requests(draw: st.DrawFn) -> tuple[ModelSignature, str]:
    """A signature of plain columns, and a valid request for it in one of the forms."""
    form = draw(st.sampled_from(FORMS))
    frames = form in FORMS[:3]
    names = draw(st.lists(st.sampled_from(["text", "a b", "ß", "x"]), min_size=1, max_size=3, unique=True))
    kinds = {name: draw(st.sampled_from(sorted(VALUES))) for name in names}
    optional = {name for name in names[1:] if draw(st.booleans())}
    signature = ModelSignature(Schema([ColSpec(kinds[n], n, required=n not in optional) for n in names]))
    sent = draw(st.permutations([n for n in names if n not in optional or draw(st.booleans())]))
    count = draw(st.integers(1, 4))
    columns: dict[str, list[Any]] = {n: [draw(_value(kinds[n], frames)) for _ in range(count)] for n in sent}
    if draw(st.booleans()):
        columns["unknown"] = list(range(count))
    return signature, json.dumps(render(form, columns, draw(st.booleans())))


def _value(kind: str, frames: bool) -> st.SearchStrategy[Any]:
    """Binary is base64 in DataFrames and ASCII text in `inputs` and `instances`; nulls occur only in DataFrames."""
    if kind == "binary" and not frames:
        return ASCII
    return VALUES[kind] | st.none() if frames and kind in NULLS else VALUES[kind]


def render(form: str, columns: dict[str, list[Any]], index: bool) -> dict[str, Any]:
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    as_records = [dict(zip(columns, row, strict=True)) for row in rows]
    split: dict[str, Any] = {"columns": list(columns), "data": rows}
    if index:
        split["index"] = list(range(7, 7 + len(rows)))
    return {
        "split": {"dataframe_split": split},
        "bare columns": {"dataframe_split": split, "signature_name": "ignored"},
        "records": {"dataframe_records": as_records},
        "input columns": {"inputs": columns},
        "input records": {"inputs": as_records},
        "instances": {"instances": as_records},
        "instance columns": {"instances": columns},
    }[form]


@settings(max_examples=400, deadline=None)
@given(requests())
def test_columns_are_read_as_by_mlflow(request: tuple[ModelSignature, str]) -> None:
    signature, body = request
    assert likewise_reads(body, signature)[0] == mlflow_reads(body, signature)[0]


TAGS = Array(DataType.string)
NESTED = ModelSignature(
    Schema(
        [
            ColSpec(TAGS, "tags"),
            ColSpec(Object([Property("a", DataType.long), Property("b", TAGS, required=False)]), "thing"),
        ]
    )
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "tags": st.lists(TEXTS, max_size=3),
                "thing": st.fixed_dictionaries({"a": LONGS}, optional={"b": st.lists(TEXTS, min_size=1, max_size=3)}),
            }
        ),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["dataframe_records", "dataframe_split", "inputs", "input columns"]),
)
def test_nested_columns_are_read_as_by_mlflow(rows: list[dict[str, Any]], form: str) -> None:
    if form == "dataframe_split":
        body: dict[str, Any] = {form: {"columns": ["tags", "thing"], "data": [[r["tags"], r["thing"]] for r in rows]}}
    elif form == "input columns":
        body = {"inputs": rows[0]}
    else:
        body = {form: rows}
    text = json.dumps(body)
    assert likewise_reads(text, NESTED)[0] == mlflow_reads(text, NESTED)[0]


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["inputs", "instances"]), st.sampled_from(sorted(VALUES.keys() - {"binary"})))
def test_a_list_of_values_is_read_as_the_only_column(data: st.DataObject, form: str, kind: str) -> None:
    signature = ModelSignature(Schema([ColSpec(kind, "only")]))
    body = json.dumps({form: data.draw(st.lists(VALUES[kind], max_size=4))})
    assert likewise_reads(body, signature)[0] == mlflow_reads(body, signature)[0]


@pytest.mark.parametrize("value", ["a", "7"])
def test_scalar_columns_are_read_as_one_row(value: str) -> None:
    signature = ModelSignature(Schema([ColSpec("string", "a"), ColSpec("string", "b")]))
    body = json.dumps({"inputs": {"a": value, "b": "x"}})
    assert likewise_reads(body, signature)[0] == mlflow_reads(body, signature)[0] == [{"a": value, "b": "x"}]


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(["inputs", "instances", "split"]), st.sampled_from(["float64", "float32", "int64"]))
def test_tensors_are_read_as_by_mlflow(data: st.DataObject, form: str, dtype: str) -> None:
    width, count = data.draw(st.integers(2, 3)), data.draw(st.integers(1, 3))
    number = st.integers(-1000, 1000) if dtype == "int64" else st.floats(-1000, 1000, width=32)
    rows = [[data.draw(number) for _ in range(width)] for _ in range(count)]
    signature = ModelSignature(Schema([TensorSpec(np.dtype(dtype), (-1, width))]))
    sent = {"columns": list(map(str, range(width))), "data": rows}
    body = json.dumps({"dataframe_split": sent} if form == "split" else {form: rows})
    parsed, _ = _split_data_and_params(body)
    if form != "split" or dtype == "float64":  # MLflow cannot cast DataFrames to the other types
        array = _enforce_schema(infer_and_parse_data(parsed, signature.inputs), signature.inputs)
        table = decode(body.encode(), None, likewise_signature(signature)).table
        assert table.columns is None
        assert np.array_equal(np.array([value for (value,) in table.rows], dtype), array)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_named_tensors_are_read_as_by_mlflow(data: st.DataObject, count: int) -> None:
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float64"), (-1, 2), "m"), TensorSpec(np.dtype("int64"), (-1,), "n")])
    )
    matrix = [[data.draw(st.floats(-9, 9)), data.draw(st.integers(-9, 9))] for _ in range(count)]
    vector = [data.draw(st.integers(-9, 9)) for _ in range(count)]
    by_row = [{"m": m, "n": n} for m, n in zip(matrix, vector, strict=True)]
    for body in (json.dumps({"inputs": {"n": vector, "m": matrix}}), json.dumps({"instances": by_row})):
        parsed, _ = _split_data_and_params(body)
        arrays = _enforce_schema(infer_and_parse_data(parsed, signature.inputs), signature.inputs)
        table = decode(body.encode(), None, likewise_signature(signature)).table
        assert table.columns == ("m", "n")
        for index, name in enumerate(table.columns):
            assert np.array_equal(np.array([row[index] for row in table.rows]), arrays[name])


PARAMS = ModelSignature(
    Schema([ColSpec("string", "text")]),
    params=ParamSchema(
        [
            ParamSpec("threshold", DataType.double, 0.5),
            ParamSpec("top", DataType.long, 3),
            ParamSpec("name", DataType.string, None),
            ParamSpec("on", DataType.boolean, False),
            ParamSpec("labels", DataType.string, ["a"], shape=(-1,)),
        ]
    ),
)


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "threshold": DOUBLES | st.integers(-9, 9),
            "top": LONGS,
            "name": TEXTS,
            "on": st.booleans(),
            "labels": st.lists(TEXTS, max_size=3),
            "unknown": st.integers(),
        },
    )
    | st.none()
)
def test_params_are_read_as_by_mlflow(params: dict[str, Any] | None) -> None:
    body = json.dumps({"inputs": ["a"], "params": params})
    assert likewise_reads(body, PARAMS) == mlflow_reads(body, PARAMS)


def test_params_that_mlflow_ignores_are_named() -> None:
    body = json.dumps({"inputs": ["a"], "params": {"thresh": 0.5, "top": 3}}).encode()
    assert decode(body, "application/json", likewise_signature(PARAMS)).ignored == ("thresh",)
    fitter = ParamsFitter(likewise_signature(PARAMS))
    with pytest.raises(WrongUsage, match="no param 'thresh'") as unknown:
        fitter.strictly({"thresh": 0.5})
    assert "did you mean 'threshold'?" in unknown.value.remedy
    with pytest.raises(WrongUsage, match=r"params\.top: expected"):
        fitter.strictly({"top": "three"})
    with pytest.raises(WrongUsage, match="no param 'k'"):
        ParamsFitter(Signature()).strictly({"k": 1})
    assert (fitter.strictly({"top": 3}) or {})["top"] == 3


PLAIN_TEXT = st.text(st.characters(codec="ascii", categories=["L"]), min_size=3, max_size=8).map(lambda t: "t" + t)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(PLAIN_TEXT, LONGS, DOUBLES | st.none(), st.booleans()), min_size=1, max_size=4))
def test_csv_is_read_as_by_mlflow(rows: list[tuple[Any, ...]]) -> None:
    kinds = {"text": "string", "n": "long", "x": "double", "b": "boolean"}
    signature = ModelSignature(Schema([ColSpec(kind, name) for name, kind in kinds.items()]))
    frame = pd.DataFrame(rows, columns=list(kinds))
    text = frame.to_csv(index=False)
    mlflow_frame = _enforce_schema(parse_csv_input(io.StringIO(text), signature.inputs), signature.inputs)
    expected = [{k: plain(v) for k, v in record.items()} for record in mlflow_frame.to_dict(orient="records")]
    read = records(decode(text.encode(), "text/csv", likewise_signature(signature)).table)
    for actual, other in zip(read, expected, strict=True):
        x, y = actual.pop("x"), other.pop("x")
        assert actual == other
        assert x == y or math.isclose(x, y, rel_tol=1e-12)  # pandas' fast float parser is off by a bit
