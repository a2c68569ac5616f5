"""Open Inference Protocol v2: responses, parsed by a real client, and metadata."""

import contextlib
import math
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from tests.support.oip import ANY, DTYPES, NO_SIGNATURE, ONE, column, encoded, read, signature, spec, without_nan

from likewise.core.errors import BadRequest, ModelFailed
from likewise.wire.oip import InferCall, encode_infer, model_metadata

# --- responses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
@settings(max_examples=30)
@given(data=st.data())
@pytest.mark.parametrize("datatype", DTYPES)
def test_each_declared_datatype_comes_back_to_the_client(datatype: str, binary: bool, data: st.DataObject) -> None:
    dtype = DTYPES[datatype]
    of = signature(outputs=[spec(dtype.name, -1, name="y")])
    array = data.draw(stn.arrays(dtype, stn.array_shapes(max_dims=3, max_side=3)))
    result, response = encoded(array.tolist(), of, binary_output=binary)
    assert response["outputs"][0]["datatype"] == datatype
    expected = array if binary or dtype.kind != "f" else np.where(np.isfinite(array), array, np.nan)
    np.testing.assert_array_equal(result.as_numpy("y"), expected)
    assert result.as_numpy("y").dtype == dtype


def test_outputs_have_one_order_and_lose_no_row() -> None:
    of = signature(outputs=[column("string", "label"), column("double", "score")])
    records = [{"score": 0.5}, {"more": 1, "label": "a"}]
    _, response = encoded(records, of)
    assert [output["name"] for output in response["outputs"]] == ["label", "score", "more"]
    assert [output["data"] for output in response["outputs"]] == [[None, "a"], [0.5, None], [None, 1.0]]
    _, response = encoded([{}, {}], NO_SIGNATURE)
    assert response["outputs"][0]["data"] == ["{}", "{}"]


@pytest.mark.parametrize("binary", [True, False])
@given(texts=st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_records_of_text_come_back_to_the_client(binary: bool, texts: list[str | None]) -> None:
    of = signature(outputs=[column("string", "text")])
    result, _ = encoded([{"text": text} for text in texts], of, binary_output=binary)
    expected = [(text or "").encode() for text in texts] if binary else texts
    assert result.as_numpy("text").tolist() == expected


NAN = math.nan


@pytest.mark.parametrize(
    ("predictions", "name", "datatype", "shape", "data"),
    [
        ([True, False], "predict", "BOOL", [2], [True, False]),
        ([1, 2], "predict", "INT64", [2], [1, 2]),
        ([1, 2**64 - 1], "predict", "UINT64", [2], [1, 2**64 - 1]),
        ([-1, 2**63], "predict", "BYTES", [2], ["-1", str(2**63)]),
        ([1, 2.5], "predict", "FP64", [2], [1.0, 2.5]),
        ([1, None], "predict", "FP64", [2], [1.0, None]),
        ([True, None], "predict", "FP64", [2], [1.0, None]),
        ([1.5, NAN, math.inf], "predict", "FP64", [3], [1.5, None, None]),
        ([None, None], "predict", "FP64", [2], [None, None]),
        (["a", None], "predict", "BYTES", [2], ["a", None]),
        (["a", NAN], "predict", "BYTES", [2], ["a", None]),
        ([datetime(2026, 11, 22)], "predict", "BYTES", [1], ["2026-11-22T00:00:00"]),
        ([b"\xff", None], "predict", "BYTES", [2], ["/w==", None]),
        ([[1, 2], [3, 4]], "predict", "INT64", [2, 2], [1, 2, 3, 4]),
        ([[[1.5]], [[2.5]]], "predict", "FP64", [2, 1, 1], [1.5, 2.5]),
        ([[], []], "predict", "FP64", [2, 0], []),
        ([[1], [1, 2]], "predict", "BYTES", [2], ["[1]", "[1,2]"]),
        ([[1], None], "predict", "BYTES", [2], ["[1]", None]),
        ([[{"a": 1}]], "predict", "BYTES", [1], ['[{"a":1}]']),
        ([1, "a"], "predict", "BYTES", [2], ["1", '"a"']),
        ([True, 1], "predict", "BYTES", [2], ["true", "1"]),
        ([b"a", "a"], "predict", "BYTES", [2], ['"YQ=="', '"a"']),
        ([{"a": 1}, 2], "predict", "BYTES", [2], ['{"a":1}', "2"]),
        ([{"y": {"a": NAN}}], "y", "BYTES", [1], ['{"a":null}']),
        ([], "predict", "FP64", [0], []),
        (5, "predict", "INT64", [1], [5]),
        ("a", "predict", "BYTES", [1], ["a"]),
        (None, "predict", "FP64", [1], [None]),
        ({"y": [1, 2]}, "y", "INT64", [2], [1, 2]),
        ({"y": 1.5}, "y", "FP64", [1], [1.5]),
    ],
)
def test_the_datatype_is_inferred_from_the_values(
    predictions: object, name: str, datatype: str, shape: list[int], data: list[object]
) -> None:
    (output,) = encoded(predictions)[1]["outputs"]
    parameters = output.pop("parameters", None)
    assert output == {"name": name, "datatype": datatype, "shape": shape, "data": data}
    assert list(map(type, output["data"])) == list(map(type, data))
    assert (parameters == {"content_type": "base64"}) == ("/w==" in data)


@pytest.mark.parametrize(
    ("declared", "values", "datatype"),
    [
        (column("integer"), [1, 2], "INT32"),
        (column("integer"), [1, 2**40], "INT64"),
        (column("long"), [1, None], "FP64"),
        (column("long"), [1.5], "FP64"),
        (column("float"), [0.5, None], "FP32"),
        (column("float"), [1e300], "FP64"),
        (column("double"), [1, 2], "FP64"),
        (column("boolean"), [True], "BOOL"),
        (column("string"), [1], "INT64"),
        (column("string"), [None], "BYTES"),
        (column("string"), [], "BYTES"),
        (column("any"), [1], "INT64"),
        (column("array", items={"type": "float"}), [[1.5, 2.5]], "FP32"),
        (column("array", items={"type": "float"}), [[1.5], [1.5, 2.5]], "BYTES"),
        (spec("float16", -1), [0.5], "FP16"),
        (spec("float16", -1), [1e6], "FP64"),
        (spec("uint8", -1), [255], "UINT8"),
        (spec("uint8", -1), [256], "INT64"),
        (spec("object", -1), ["a"], "BYTES"),
    ],
)
def test_the_signatures_datatype_is_used_if_the_values_have_it(
    declared: dict[str, object], values: list[object], datatype: str
) -> None:
    for binary in (True, False):
        (output,) = encoded(values, signature(outputs=[declared]), binary_output=binary)[1]["outputs"]
        assert (output["name"], output["datatype"], output["shape"][0]) == ("predict", datatype, len(values))


def test_records_become_one_tensor_per_column() -> None:
    records = [{"label": "a", "score": 0.5, "top": [1, 2]}, {"label": "b", "top": [3, 4], "late": True}]
    result, response = encoded(records, id="r")
    assert {key: response[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "m",
        "model_version": "3",
        "id": "r",
    }
    assert [output["name"] for output in response["outputs"]] == ["label", "score", "top", "late"]
    assert result.as_numpy("label").tolist() == ["a", "b"]
    assert without_nan(result.as_numpy("score").tolist()) == [0.5, None]
    assert result.as_numpy("top").tolist() == [[1, 2], [3, 4]]


def test_missing_version_and_id_are_omitted() -> None:
    call = InferCall(read(ONE).table)
    body, length = encode_infer(call, [1], NO_SIGNATURE, model_name="m", model_version=None)
    assert length is None
    assert orjson.loads(body).keys() == {"model_name", "outputs"}


def test_an_unnamed_output_has_the_signatures_name() -> None:
    _, response = encoded([0.5], signature(outputs=[spec("float64", -1, name="score")]))
    assert response["outputs"][0]["name"] == "score"


def test_without_rows_the_outputs_are_the_signatures_columns() -> None:
    _, response = encoded([], signature(outputs=[column("string", "a"), column("long", "b")]))
    assert [(o["name"], o["datatype"], o["shape"]) for o in response["outputs"]] == [
        ("a", "BYTES", [0]),
        ("b", "INT64", [0]),
    ]


def test_only_the_requested_outputs_are_returned_in_their_order_and_format() -> None:
    records = [{"a": 1, "b": "x", "c": NAN}]
    requested = {"c": True, "b": False, "a": None}
    for binary in (True, False):
        result, response = encoded(records, outputs=requested, binary_output=binary)
        assert [output["name"] for output in response["outputs"]] == ["c", "b", "a"]
        sizes = [output.get("parameters", {}).get("binary_data_size") for output in response["outputs"]]
        assert sizes == [8, None, 8 if binary else None]
        assert math.isnan(result.as_numpy("c")[0])
        assert result.as_numpy("a").tolist() == [1]
    assert [o["name"] for o in encoded(records, outputs={"b": None})[1]["outputs"]] == ["b"]


def test_the_error_for_an_unknown_output_suggests_the_closest_name() -> None:
    with pytest.raises(BadRequest, match="no output 'lable'") as caught:
        encoded([{"label": 1}], outputs={"lable": None})
    assert caught.value.remedy == "request 'label'"


def test_missing_values_in_binary_outputs_are_nan_and_empty() -> None:
    result, _ = encoded([{"n": 1.5, "t": "a"}, {"n": None, "t": None}], binary_output=True)
    assert without_nan(result.as_numpy("n").tolist()) == [1.5, None]
    assert result.as_numpy("t").tolist() == [b"a", b""]


def test_datetimes_in_binary_outputs_are_iso_text() -> None:
    result, _ = encoded([datetime(2026, 11, 22, 9, 30)], binary_output=True)
    assert result.as_numpy("predict").tolist() == [b"2026-11-22T09:30:00"]


def deep(levels: int) -> list[Any]:
    value: list[Any] = [1]
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("value", [["\ud800"], [[1], "\ud800"], [2**64], [10**400, 0.5], [[object()], []], deep(2000)])
def test_predictions_that_cannot_be_encoded_are_a_model_failure(value: object, binary: bool) -> None:
    with pytest.raises(ModelFailed) as caught:
        encoded(value, binary_output=binary)
    assert caught.value.remedy


@settings(max_examples=200)
@given(predictions=st.lists(ANY, max_size=4) | st.lists(st.dictionaries(st.text(max_size=3), ANY), max_size=3) | ANY)
@example(predictions=[deep(20)])
def test_arbitrary_predictions_are_encoded_or_a_model_failure(predictions: object) -> None:
    for binary in (True, False):
        with contextlib.suppress(ModelFailed):
            result, response = encoded(predictions, binary_output=binary)
            assert all(result.as_numpy(output["name"]) is not None for output in response["outputs"])


# --- metadata --------------------------------------------------------------------------------------------------------


def test_metadata_describes_the_signature() -> None:
    of = signature(
        column("string", "text"),
        column("integer", "n"),
        column("array", "v", items={"type": "array", "items": {"type": "double"}}),
        column("array", "o", items={"type": "object", "properties": {}}),
        outputs=[spec("float32", -1, 3)],
    )
    assert model_metadata(of, name="m", version="3", platform="mlflow_likewise") == {
        "name": "m",
        "versions": ["3"],
        "platform": "mlflow_likewise",
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [-1]},
            {"name": "n", "datatype": "INT32", "shape": [-1]},
            {"name": "v", "datatype": "FP64", "shape": [-1, -1, -1]},
            {"name": "o", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [{"name": "predict", "datatype": "FP32", "shape": [-1, 3]}],
    }
    undeclared = model_metadata(NO_SIGNATURE, name="m", version=None, platform="p")
    assert (undeclared["versions"], undeclared["inputs"], undeclared["outputs"]) == ([], [], [])


def test_requests_may_use_the_names_of_unnamed_inputs_in_the_metadata() -> None:
    of = signature(column("string"), column("long"))
    listed = model_metadata(of, name="m", version=None, platform="p")["inputs"]
    assert isinstance(listed, list)
    sent = [entry | {"shape": [1], "data": [value]} for entry, value in zip(listed, ["a", 1], strict=True)]
    assert list(read(*sent, of=of).table.rows) == [("a", 1)]
