"""Values that an interface has changed, dropped or refused without need, each with its right value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property
from tests.support.batch.scoring import quarantined, read
from tests.support.models import save_code, seal
from tests.support.spy import Refused, Row, Spy, SpyFolder, content, content_of, fields
from tests.support.spy_sources import CSV, JSON, scored, serving

from likewise import api
from likewise.batch import ScoreOptions
from likewise.core.errors import BadRequest
from likewise.wire import Decoder


@pytest.fixture(scope="module")
def spies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpyFolder]:
    folder = SpyFolder(tmp_path_factory.mktemp("spies"))
    yield folder
    folder.close()


def one(kind: Any, *, required: bool = True) -> Schema:
    return Schema([ColSpec(kind, "field", required=required)])


def from_parquet(spy: Spy, folder: Path, *values: Any, of: pa.DataType) -> list[Any]:
    """The described values, or refusals, of a Parquet column `field` in a job."""
    pq.write_table(pa.table({"field": pa.array(values, of)}), folder / "in.parquet")
    output = folder / f"out{len(list(folder.iterdir()))}.jsonl"
    return [seen(row) for row in scored(spy, folder / "in.parquet", output)]


def from_request(spy: Spy, body: Any, media: str = JSON) -> list[Any]:
    """The described values of a request's rows, or its refusal."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        return [seen(row) for row in spy.called(Decoder(spy.signature)(raw, media))]
    except BadRequest as error:
        return [Refused(error.cause)]


def seen(row: Row | Refused) -> Any:
    """The described value of a row's first field."""
    return row if isinstance(row, Refused) else fields(row)[0][2]


def refused(answer: Any) -> bool:
    """Whether a value was refused with an error that names the field."""
    return isinstance(answer, Refused) and "field" in answer.cause


# --- typed files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "of", "bad", "good", "expected"),
    [
        ("integer", pa.int64(), 2**40, 5, ["numpy.int32", "5"]),
        ("long", pa.float64(), 1.5, 2.0, ["numpy.int64", "2"]),
        ("long", pa.uint64(), 2**63, 2**63 - 1, ["numpy.int64", str(2**63 - 1)]),
        ("double", pa.int64(), 2**53 + 1, 2**53, ["numpy.float64", float(2**53).hex()]),
        ("boolean", pa.int64(), 2, 1, ["numpy.bool", "True"]),
        ("boolean", pa.bool_(), None, True, ["numpy.bool", "True"]),
        ("float", pa.float64(), 1e39, 1.5, ["numpy.float32", "0x1.8000000000000p+0"]),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_its_neighbours_are_not(
    spies: SpyFolder, tmp_path: Path, kind: str, of: pa.DataType, bad: Any, good: Any, expected: list[str]
) -> None:
    spy = spies.signed(f"one {kind}", one(kind))
    first, second, third = from_parquet(spy, tmp_path, good, bad, good, of=of)
    assert refused(second)
    assert [first, third] == [expected, expected] or (refused(first) and refused(third))
    if pa.types.is_boolean(of) or kind in ("integer", "double"):
        assert first == expected


def test_a_null_in_an_optional_boolean_is_none(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.signed("optional boolean", one("boolean", required=False))
    assert from_parquet(spy, tmp_path, None, True, of=pa.bool_()) == [["NoneType"], ["numpy.bool", "True"]]
    assert from_request(spy, {"dataframe_records": [{"field": None}]}) == [["NoneType"]]


def test_a_fraction_in_a_column_for_a_tensor_of_integers_is_refused(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.signed("int64 tensor", Schema([TensorSpec(np.dtype("int64"), (-1,))]))
    whole, half = from_parquet(spy, tmp_path, 4.0, 4.5, of=pa.float64())
    assert isinstance(half, Refused)
    assert whole == ["numpy.int64", "4"] or isinstance(whole, Refused)


@pytest.mark.parametrize(
    ("body", "media"),
    [
        ({"dataframe_split": {"columns": ["field"], "data": [[None]]}}, JSON),
        ({"dataframe_records": [{"field": None}]}, JSON),
        ({"inputs": [{"field": None}]}, JSON),
        ({"instances": [{"field": None}]}, JSON),
        (b'field,other\n"",1\n', CSV),
    ],
)
def test_a_null_in_an_optional_binary_column_of_a_request_is_none(spies: SpyFolder, body: Any, media: str) -> None:
    assert from_request(spies.signed("optional binary", one("binary", required=False)), body, media) == [["NoneType"]]


def test_a_null_in_an_optional_binary_column_of_a_file_is_none(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.signed("optional binary", one("binary", required=False))
    assert from_parquet(spy, tmp_path, b"a\0", None, of=pa.binary()) == [["bytes", "6100"], ["NoneType"]]
    (tmp_path / "in.jsonl").write_text('{"field": null}\n{"field": "YQA="}\n')
    rows = scored(spy, tmp_path / "in.jsonl", tmp_path / "lines.jsonl")
    assert [seen(row) for row in rows] == [["NoneType"], ["bytes", "6100"]]


def test_a_time_with_a_zone_is_naive_and_in_utc(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.signed("datetime", one("datetime"))
    moment = pd.Timestamp("2026-01-02T03:04:05.000006+02:00")
    for of in (pa.timestamp("us", "UTC"), pa.timestamp("us", "Europe/Berlin")):
        assert from_parquet(spy, tmp_path, moment, of=of) == [["Timestamp", "2026-01-02T01:04:05.000006"]]


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05.123456789", "2026-01-02 05:04:05.123456789+02:00"])
def test_nanoseconds_are_kept(spies: SpyFolder, tmp_path: Path, text: str) -> None:
    spy = spies.signed("datetime", one("datetime"))
    expected = [["Timestamp", "2026-01-02T03:04:05.123456789"]]
    assert from_request(spy, {"dataframe_records": [{"field": text}]}) == expected
    assert from_request(spy, f"field\n{text}\n".encode(), CSV) == expected
    for name, written in (("in.csv", f"field\n{text}\n"), ("in.jsonl", json.dumps({"field": text}) + "\n")):
        (tmp_path / name).write_text(written)
        assert [seen(row) for row in scored(spy, tmp_path / name, tmp_path / f"{name}.jsonl")] == expected


def test_a_map_is_a_dict(spies: SpyFolder, tmp_path: Path) -> None:
    of = pa.map_(pa.string(), pa.int64())
    expected = ["dict", [[["str", "a"], ["numpy.int64", "1"]], [["str", "b"], ["numpy.int64", "2"]]]]
    signed = spies.signed("map", one(Map(DataType.long)))
    assert from_parquet(signed, tmp_path, [("a", 1), ("b", 2)], of=of) == [expected]
    ((kind, members),) = from_parquet(spies.signed("unsigned", None), tmp_path, [("a", 1)], of=of)
    assert kind == "dict"
    assert members[0][0] == ["str", "a"]


def test_an_object_with_an_integer_is_taken_and_a_bad_one_stops_nothing(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.signed("object", one(Object([Property("n", DataType.long)])))
    of = pa.struct([("n", pa.int64())])
    first, second, third = from_parquet(spy, tmp_path, {"n": 1}, {"n": None}, {"n": 3}, of=of)
    assert (first, third) == (
        ["dict", [[["str", "n"], ["numpy.int64", "1"]]]],
        ["dict", [[["str", "n"], ["numpy.int64", "3"]]]],
    )
    assert refused(second)
    (entry,) = quarantined(next(tmp_path.glob("out?.jsonl")))
    assert entry["row"] == 2
    assert json.loads(str(entry["columns"])) == {"field": {"n": None}}


@pytest.mark.parametrize("of", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_every_type_of_text_is_text(spies: SpyFolder, tmp_path: Path, of: pa.DataType) -> None:
    assert from_parquet(spies.signed("string", one("string")), tmp_path, "a", "ß", of=of) == [
        ["str", "a"],
        ["str", "ß"],
    ]


# --- text ------------------------------------------------------------------------------------------------------------


def test_a_text_that_overflows_is_refused(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.signed("double", one("double"))
    assert refused(from_request(spy, {"dataframe_records": [{"field": "1e400"}]})[0])
    assert refused(from_request(spy, b"field\n1e400\n", CSV)[0])
    assert isinstance(from_request(spy, b'{"dataframe_records": [{"field": 1e400}]}')[0], Refused)
    (tmp_path / "in.csv").write_text("field\n1.5\n-1e400\n")
    good, bad = scored(spy, tmp_path / "in.csv", tmp_path / "out.jsonl")
    assert seen(good) == ["numpy.float64", "0x1.8000000000000p+0"]
    assert refused(bad)


def test_a_null_does_not_change_the_integers_of_other_rows(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.signed("unsigned", None)
    expected = [["numpy.int64", str(2**53 + 1)], ["NoneType"], ["numpy.int64", str(2**53 + 1)]]
    rows = [{"field": 2**53 + 1}, {"field": None}, {"field": 2**53 + 1}]
    assert from_request(spy, {"dataframe_records": rows}) == expected
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [seen(row) for row in scored(spy, tmp_path / "in.jsonl", tmp_path / "out.jsonl")] == expected


def test_bytes_of_a_type_hint_are_base64_in_a_request(spies: SpyFolder) -> None:
    assert from_request(spies.hinted("list[bytes]"), {"inputs": ["AAH/"]}) == [["bytes", "0001ff"]]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_flat_rows_of_a_pydantic_hint_are_scored_and_its_defaults_apply(
    spies: SpyFolder, tmp_path: Path, suffix: str
) -> None:
    source = tmp_path / f"in.{suffix}"
    frame = pd.DataFrame({"n": [1, 2]})
    if suffix == "csv":
        frame.to_csv(source, index=False)
    elif suffix == "jsonl":
        frame.to_json(source, orient="records", lines=True)
    else:
        frame.to_parquet(source)
    rows = scored(spies.hinted("list[Thing]"), source, tmp_path / "out.jsonl")
    expected = [["str", "n"], ["int", "1"]], [["str", "name"], ["str", "x"]], [["str", "weight"], ["NoneType"]]
    assert seen(rows[0]) == ["Thing", list(expected)]
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("body", "schema"),
    [
        ({"inputs": [{"field": "a"}], "params": {"x": 1}}, one("string")),
        ({"inputs": [{"field": "a"}], "params": {}}, one("string")),
        (
            {"messages": [{"role": "user", "content": "hi"}], "more": 1},
            Schema([ColSpec(Array(Map(DataType.string)), "messages")]),
        ),
    ],
)
def test_params_that_the_model_does_not_declare_are_an_empty_dict(spies: SpyFolder, body: Any, schema: Schema) -> None:
    spy = spies.signed(str(schema), schema)
    (row,) = spy.called(Decoder(spy.signature)(json.dumps(body).encode(), JSON))
    assert not isinstance(row, Refused)
    assert row["params"] == ["dict", []]


def test_a_request_without_params_has_none(spies: SpyFolder) -> None:
    spy = spies.signed("string", one("string"))
    (row,) = spy.called(Decoder(spy.signature)(b'{"inputs": [{"field": "a"}]}', JSON))
    assert row["params"] == spy.reference(pd.DataFrame({"field": ["a"]}))[0]["params"]  # type: ignore[index]


@pytest.mark.parametrize("form", ["inputs", "instances", "dataframe_records"])
@pytest.mark.parametrize(
    ("element", "value"),
    [
        (AnyType(), [1, "a"]),
        (AnyType(), [True, "x"]),
        (AnyType(), [2**53 + 1, 0.5]),
        (AnyType(), [[1, "a"]]),
        (Array(DataType.string), [["a\0"], ["b"]]),
        (DataType.string, ["a\0", "b"]),
    ],
)
def test_elements_of_an_array_do_not_change_each_other(spies: SpyFolder, form: str, element: Any, value: Any) -> None:
    spy = spies.signed(f"array of {element}", one(Array(element)))
    (answer,) = from_request(spy, {form: [{"field": value}]})
    assert content(answer) == content_of(value)


# --- other models ----------------------------------------------------------------------------------------------------


def model(folder: Path, predict: str, inputs: Schema | None = None, outputs: Schema | None = None) -> api.Bundle:
    """A model whose `predict` returns the expression `predict` of `x`."""
    code = f"""
    import mlflow, numpy as np, pandas as pd
    class M(mlflow.pyfunc.PythonModel):
        def predict(self, context, x, params=None):
            return {predict}
    mlflow.models.set_model(M())
    """
    signature = None if inputs is None else ModelSignature(inputs, outputs)
    save_code(folder / "bundle" / "model", code, signature=signature)
    return api.open_bundle(seal(folder / "bundle").path, trust=True)


def predictions(bundle: api.Bundle, source: Path, output: Path, **options: Any) -> list[Any]:
    report = api.score(bundle, source, output, options=ScoreOptions(**options))
    assert report.rows_quarantined == 0, quarantined(output)
    return [row["predictions"] for row in read(output)]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_numbers_of_a_file_without_a_signature_are_numbers(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"a": [1, 10], "b": [2, 20]})
    source = tmp_path / f"in.{suffix}"
    if suffix == "csv":
        frame.to_csv(source, index=False)
    elif suffix == "jsonl":
        frame.to_json(source, orient="records", lines=True)
    else:
        frame.to_parquet(source)
    assert predictions(model(tmp_path, "(x['a'] + x['b']).tolist()"), source, tmp_path / "out.jsonl") == [3, 30]


@pytest.mark.parametrize("out", ["jsonl", "parquet"])
def test_a_model_that_changes_its_input_does_not_change_the_callers(tmp_path: Path, out: str) -> None:
    changing = model(tmp_path, "[tags.append('!') or len(tags) if isinstance(tags, list) else 0 for tags in x['tags']]")
    (tmp_path / "in.jsonl").write_text('{"tags": ["a"]}\n{"tags": ["b", "c"]}\n')
    pq.write_table(pa.table({"tags": [["a"], ["b", "c"]]}), tmp_path / "in.parquet")
    for source in ("in.jsonl", "in.parquet"):
        output = tmp_path / f"{source}.{out}"
        api.score(changing, tmp_path / source, output)
        written = [row["tags"] for row in read(output)]
        assert [json.loads(tags) if isinstance(tags, str) else tags for tags in written] == [["a"], ["b", "c"]]
    frame = pd.DataFrame({"tags": [["a"]]})
    assert changing.predict(frame) == [2]
    assert frame["tags"].tolist() == [["a"]]


@pytest.mark.parametrize(
    ("predict", "outputs", "expected", "of"),
    [
        ("np.array([1.5, 2.5])[:len(x)]", None, [1.5, 2.5], pa.float64()),
        ("[[1, 2], [3]][:len(x)]", None, [[1, 2], [3]], pa.list_(pa.int64())),
        ("[[0.5], [1.5]][:len(x)]", Schema([ColSpec(Array(DataType.double))]), [[0.5], [1.5]], pa.list_(pa.float64())),
        ("np.array([[1.5, 2], [3, 4]])[:len(x)]", Schema([TensorSpec(np.dtype("float64"), (-1, 2))]),
         [[1.5, 2.0], [3.0, 4.0]], pa.list_(pa.float64())),
    ],
)  # fmt: skip
def test_predictions_in_parquet_have_native_types(
    tmp_path: Path, predict: str, outputs: Schema | None, expected: list[Any], of: pa.DataType
) -> None:
    bundle = model(tmp_path, predict, one("long"), outputs)
    pq.write_table(pa.table({"field": [1, 2]}), tmp_path / "in.parquet")
    assert predictions(bundle, tmp_path / "in.parquet", tmp_path / "out.parquet") == expected
    assert pq.read_schema(tmp_path / "out.parquet").field("predictions").type == of


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_are_the_elements_of_a_tensors_rows_in_their_order(tmp_path: Path, suffix: str) -> None:
    bundle = model(tmp_path, "x[:, 0] - x[:, 1]", Schema([TensorSpec(np.dtype("float64"), (-1, 2))]))
    frame = pd.DataFrame({"b": [3.0, 10.0], "a": [1.0, 20.0]})
    source = tmp_path / f"in.{suffix}"
    frame.to_csv(source, index=False) if suffix == "csv" else frame.to_parquet(source)
    assert predictions(bundle, source, tmp_path / "out.jsonl") == [2.0, -10.0]


def test_a_series_with_a_name_of_no_column_is_written_as_its_values(tmp_path: Path) -> None:
    """What statsmodels returns: a Series named 0 of a signature with one double."""
    schema = Schema([ColSpec("double", "field")])
    bundle = model(tmp_path, "pd.Series(x['field'] * 2)", schema, Schema([ColSpec("double")]))
    unnamed = model(tmp_path / "unnamed", "pd.Series((x['field'] * 2).to_numpy())", schema, Schema([ColSpec("double")]))
    pd.DataFrame({"field": [1.5, 2.5]}).to_parquet(tmp_path / "in.parquet")
    for number, each in enumerate((bundle, unnamed)):
        output = tmp_path / f"out{number}.parquet"
        assert predictions(each, tmp_path / "in.parquet", output) == [3.0, 5.0]


def test_a_dict_of_arrays_gives_each_row_its_own_entries(tmp_path: Path) -> None:
    inputs = Schema([TensorSpec(np.dtype("float64"), (-1, 2))])
    outputs = Schema([TensorSpec(np.dtype("float64"), (-1, 2), "twice"), TensorSpec(np.dtype("float64"), (-1,), "sum")])
    bundle = model(tmp_path, "{'twice': x * 2, 'sum': x.sum(axis=1)}", inputs, outputs)
    pq.write_table(pa.table({"x": [[1.0, 2.0], [3.0, 4.0]]}), tmp_path / "in.parquet")
    got = predictions(bundle, tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert got == [{"twice": [2.0, 4.0], "sum": 3.0}, {"twice": [6.0, 8.0], "sum": 7.0}]


def test_the_web_service_and_a_job_read_the_same_csv_alike(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.signed("unsigned", None)
    text = "a,b,c\n1,x,true\n2,NA,false\n"
    (tmp_path / "in.csv").write_text(text)
    with serving(spy) as client:
        response = client.post("/invocations", content=text, headers={"Content-Type": CSV})
    over_http = [json.loads(row) for row in response.json()["predictions"]]
    assert scored(spy, tmp_path / "in.csv", tmp_path / "out.jsonl") == over_http
