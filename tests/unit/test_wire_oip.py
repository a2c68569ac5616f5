"""Open Inference Protocol v2: decoding of a real client's requests, errors for mistakes and hostile requests."""

import base64
import contextlib
import json
import math
import struct
import tracemalloc
from datetime import datetime
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from tests.support.oip import (
    ANY,
    DTYPES,
    LEAF,
    MIXED,
    NO_SIGNATURE,
    ONE,
    TEXT,
    body_of,
    column,
    read,
    refusal,
    signature,
    spec,
    tensor,
    without_nan,
)
from tritonclient.http import InferRequestedOutput

from likewise.core.errors import BadRequest
from likewise.core.signature import Signature
from likewise.wire.oip import decode_infer

# --- valid requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", DTYPES)
@settings(max_examples=25)
@given(data=st.data())
def test_each_datatype_arrives_as_the_client_sent_it(datatype: str, binary: bool, data: st.DataObject) -> None:
    shapes = stn.array_shapes(min_dims=1, max_dims=3, max_side=4)
    sent = data.draw(
        stn.arrays(DTYPES[datatype], shapes, elements={"allow_infinity": binary} if "F" in datatype else None)
    )
    body, length = body_of({"x": sent}, binary)
    table = decode_infer(body, length, NO_SIGNATURE).table
    assert table.columns == ("x",)
    expected = sent[:, 0] if sent.shape[1:] == (1,) else sent
    values = [row[0] for row in table.rows]
    assert values == without_nan(expected.tolist())
    flat = np.array(values, object).ravel()
    assert {type(value) for value in flat} <= {type(sent.flat[0].item()), type(None)}


@settings(max_examples=50)
@given(sent=stn.arrays("f4", st.integers(1, 6), elements=st.floats(width=32)))
@example(sent=np.array([1 + 2**-8, 1 + 3 * 2**-8, np.nan, -0.0], np.float32))  # ties are rounded to even
def test_bfloat16_is_rounded_equally_in_bytes_and_json(sent: np.ndarray[Any, Any]) -> None:
    with np.errstate(over="ignore"):
        rounded = sent.astype(ml_dtypes.bfloat16)
    body, length = body_of({"x": rounded})
    expected = without_nan([float(value) for value in rounded])
    assert [row[0] for row in decode_infer(body, length, NO_SIGNATURE).table.rows] == expected
    if not np.isinf(rounded.astype(np.float32)).any():
        call = read(tensor("x", "BF16", [len(sent)], without_nan(sent.tolist())))
        assert [row[0] for row in call.table.rows] == expected


@pytest.mark.parametrize("binary", [True, False])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_text_arrives_as_the_client_sent_it(binary: bool, texts: list[str]) -> None:
    body, length = body_of({"text": np.array(texts, object)}, binary)
    assert list(decode_infer(body, length, TEXT).table.rows) == [(text,) for text in texts]


@given(elements=st.lists(st.binary(), min_size=1))
def test_bytes_reach_a_binary_column_unchanged(elements: list[bytes]) -> None:
    of = signature(column("binary", "x"))
    array = np.empty(len(elements), object)
    array[:] = elements
    body, length = body_of({"x": array})
    assert list(decode_infer(body, length, of).table.rows) == [(element,) for element in elements]
    coded = [base64.b64encode(element).decode() for element in elements]
    call = read(tensor("x", "BYTES", [len(coded)], coded, content_type="base64"), of=of)
    assert list(call.table.rows) == [(element,) for element in elements]


def test_json_text_in_a_binary_column_is_encoded_as_utf8() -> None:
    call = read(tensor("x", "BYTES", [1, 1], ["é"]), of=signature(column("binary", "x")))
    assert list(call.table.rows) == [("é".encode(),)]


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_pythons_infinity_is_accepted_and_nan_is_missing(datatype: str) -> None:
    call = read(tensor("x", datatype, [3], [math.inf, -math.inf, math.nan]))
    assert [row[0] for row in call.table.rows] == [math.inf, -math.inf, None]


def test_base64_in_a_text_column_is_decoded() -> None:
    assert list(read(tensor("text", "BYTES", [1], ["aGk="], content_type="base64"), of=TEXT).table.rows) == [("hi",)]


def test_without_a_signature_base64_values_are_bytes() -> None:
    assert list(read(tensor("x", "BYTES", [1], ["/w=="], content_type="base64")).table.rows) == [(b"\xff",)]
    call = read(tensor("x", "BYTES", [1], binary_data_size=5, content_type="base64"), tail=b"\1\0\0\0\xff")
    assert list(call.table.rows) == [(b"\xff",)]


def test_columns_are_reordered_by_the_signature_and_optional_ones_may_be_missing() -> None:
    call = read(tensor("count", "INT32", [2, 1], [[1], [2]]), tensor("text", "BYTES", [2], ["a", None]), of=MIXED)
    assert call.table.columns == ("text", "count")
    assert list(call.table.rows) == [("a", 1), (None, 2)]


def test_binary_and_json_inputs_mix_and_the_tail_follows_the_order_of_the_inputs() -> None:
    call = read(
        tensor("a", "INT16", [2], binary_data_size=4),
        tensor("b", "BYTES", [2], ["x", "y"]),
        tensor("c", "BYTES", [2], binary_data_size=10),
        tail=struct.pack("<hh", -1, 2) + b"\2\0\0\0hi\0\0\0\0",
    )
    assert list(call.table.rows) == [(-1, "x", "hi"), (2, "y", "")]


@pytest.mark.parametrize(
    ("kind", "sent", "expected_values"),
    [
        (column("double", "v"), tensor("v", "FP64", [2], [1.5, None]), [1.5, None]),
        (column("double", "v"), tensor("v", "INT8", [1], [1]), [1.0]),
        (column("long", "v"), tensor("v", "FP64", [1], [5.0]), [5]),
        (column("long", "v"), tensor("v", "UINT64", [1], [2**63 - 1]), [2**63 - 1]),
        (column("boolean", "v"), tensor("v", "BOOL", [2], [True, False]), [True, False]),
        (column("datetime", "v"), tensor("v", "BYTES", [1], ["2026-11-22T09:30:00"]), [datetime(2026, 11, 22, 9, 30)]),
        (column("any", "v"), tensor("v", "BYTES", [1], ["[1]"]), ["[1]"]),
        (column("map", "v", values={"type": "long"}), tensor("v", "BYTES", [1], ['{"a": 1}']), [{"a": 1}]),
        (column("array", "v", items={"type": "long"}), tensor("v", "INT8", [1, 2], [3, 4]), [[3, 4]]),
        (column("array", "v", items={"type": "string"}), tensor("v", "BYTES", [1, 1], ["a"]), [["a"]]),
        (column("array", "v", items={"type": "binary"}), tensor("v", "BYTES", [1, 1], ["a"]), [[b"a"]]),
        (column("array", "v", items={"type": "string"}), tensor("v", "BYTES", [2], ["[]", '["a"]']), [[], ["a"]]),
        (column("array", "v", items={"type": "binary"}), tensor("v", "BYTES", [1], ['["YQ=="]']), [[b"a"]]),
    ],
)
def test_values_are_cast_to_the_columns_type(
    kind: dict[str, object], sent: dict[str, Any], expected_values: list[object]
) -> None:
    values = [row[0] for row in read(sent, of=signature(kind)).table.rows]
    assert values == expected_values
    assert [type(value) for value in values] == [type(value) for value in expected_values]


def test_tensors_are_sliced_by_row() -> None:
    of = signature(spec("float32", -1, 2, 2))
    for data in ([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], [1, 2, 3, 4, 5, 6, 7, 8]):
        call = read(tensor("of any name", "FP32", [2, 2, 2], data), of=of)
        assert call.table.columns is None
        assert list(call.table.rows) == [([[1.0, 2.0], [3.0, 4.0]],), ([[5.0, 6.0], [7.0, 8.0]],)]


def test_named_tensors_are_matched_by_name() -> None:
    of = signature(spec("float64", -1, 2, name="a"), spec("int8", -1, name="b"), spec("bytes", -1, name="c"))
    call = read(
        tensor("c", "BYTES", [1], ["é"]),
        tensor("b", "INT64", [1], [7]),
        tensor("a", "FP64", [1, 2], [None, 2.5]),
        of=of,
    )
    assert call.table.columns == ("a", "b", "c")
    assert list(call.table.rows) == [([None, 2.5], 7, "é".encode())]


def test_unnamed_columns_accept_any_names_in_order() -> None:
    alone = read(tensor("x", "BYTES", [2, 1], ["a", "b"]), of=signature(column("string")))
    assert (alone.table.columns, list(alone.table.rows)) == (None, [("a",), ("b",)])
    several = signature(column("string"), column("long"))
    call = read(tensor("x", "BYTES", [1], ["a"]), tensor("y", "INT8", [1], [1]), of=several)
    assert list(call.table.rows) == [("a", 1)]
    together = read(tensor("x", "INT8", [1, 2], [1, 2]), of=signature(column("double"), column("long")))
    assert list(together.table.rows) == [([1.0, 2],)]
    assert "takes 2, but 3" in refusal(*(tensor(n, "INT8", [1], [1]) for n in "abc"), of=several)


def test_a_request_without_rows_is_accepted() -> None:
    assert len(read(tensor("text", "BYTES", [0], []), of=TEXT).table) == 0
    body, length = body_of({"text": np.array([], object)})
    assert len(decode_infer(body, length, TEXT).table) == 0


def test_the_models_params_are_used_and_other_parameters_ignored() -> None:
    of = signature(column("string", "text"), params=[{"name": "k", "type": "long", "default": 1, "shape": None}])
    sent = tensor("text", "BYTES", [1], ["a"], content_type="str", headers={"x": 1})
    call = read(sent, of=of, parameters={"k": 5, "sequence_id": 3, "content_type": "pd", "priority": 1})
    assert call.params == {"k": 5}
    assert read(sent, of=of).params == {"k": 1}
    assert "params.k" in refusal(sent, of=of, parameters={"k": "many"})


def test_requested_outputs_and_id_are_decoded() -> None:
    requested = [InferRequestedOutput("a"), InferRequestedOutput("b", binary_data=False)]
    body, length = body_of({"text": np.array(["x"], object)}, outputs=requested, request_id="r1")
    call = decode_infer(body, length, TEXT)
    assert call.id == "r1"
    assert list(call.outputs.items()) == [("a", True), ("b", False)]
    assert not call.binary_output
    body, length = body_of({"text": np.array(["x"], object)})
    assert decode_infer(body, length, TEXT).binary_output


# --- invalid requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "more", "message"),
    [
        ([], {}, "expected a list of tensors"),
        ([5], {}, "inputs, entry 0"),
        ([{"datatype": "INT8"}], {}, "inputs, entry 0"),
        ([tensor("x", "int8", [1], [1])], {}, "did you mean 'INT8'"),
        ([tensor("x", "FP8", [1], [1])], {}, "input 'x': the datatype"),
        ([tensor("x", "INT8", [-1], [1])], {}, "input 'x': the shape is [-1]"),
        ([tensor("x", "INT8", [2], [1])], {}, "input 'x': data has 1 elements, but the shape is [2]"),
        ([tensor("x", "INT8", [2, 2], [[1, 2], [3]])], {}, "a list of 1 at level 1"),
        ([tensor("x", "INT8", [2], [[1], [2]])], {}, "input 'x', element 0"),
        ([tensor("x", "INT8", [2], [1, 128])], {}, "input 'x', element 1: expected a whole number from -128 to 127"),
        ([tensor("x", "INT8", [1], [1.5])], {}, "a whole number"),
        ([tensor("x", "INT8", [1], [True])], {}, "datatype INT8"),
        ([tensor("x", "INT64", [1], [math.inf])], {}, "a whole number"),
        ([tensor("x", "UINT64", [1], [-1])], {}, "from 0 to"),
        ([tensor("x", "FP64", [1], ["1"])], {}, "datatype FP64"),
        ([tensor("x", "FP64", [2], [math.inf, 10**400])], {}, "element 1: expected a number within the range of FP64"),
        ([tensor("x", "FP32", [2], [1, 1e39])], {}, "element 1: expected a number within the range of FP32"),
        ([tensor("x", "FP16", [1], [70000])], {}, "range of FP16"),
        ([tensor("x", "BF16", [1], [3.4e38])], {}, "range of BF16"),
        ([tensor("x", "BOOL", [1], [1])], {}, "datatype BOOL"),
        ([tensor("x", "BYTES", [1], [1])], {}, "datatype BYTES"),
        ([tensor("x", "BYTES", [2], ["aGk=", "?"], content_type="base64")], {}, "element 1: expected bytes in base64"),
        ([tensor("x", "INT8", [1])], {}, "input 'x': data is null"),
        ([tensor("x", "INT8", [1], {"a": 1})], {}, "input 'x': data is an object"),
        ([tensor("x", "INT8", [1], [1], binary_data_size=1)], {}, "both data and binary_data_size are set"),
        ([tensor("x", "INT8", [1], binary_data_size=1)], {}, "only 0 bytes are left"),
        ([tensor("x", "INT8", [1], binary_data_size=2)], {}, "needs 1 bytes"),
        ([tensor("x", "INT8", [1], binary_data_size=True)], {}, "binary_data_size is true"),
        ([tensor("x", "INT8", [1], binary_data_size=-1)], {}, "binary_data_size is -1"),
        ([tensor("x", "INT8", [1], shared_memory_region="r")], {}, "shared memory"),
        ([tensor("x", "INT8", [1], [1]) | {"parameters": 5}], {}, "input 'x': parameters is 5"),
        ([ONE, tensor("x", "INT8", [1], [1])], {}, "duplicate name 'x'"),
        ([ONE, tensor("y", "INT8", [2], [1, 2])], {}, "input 'y' has 2 rows, but input 'x' has 1"),
        ([ONE], {"id": 5}, "id: expected a string"),
        ([ONE], {"parameters": []}, "the request: parameters"),
        ([ONE], {"parameters": {"binary_data_output": 1}}, "binary_data_output is 1"),
        ([ONE], {"outputs": {}}, "outputs: expected a list"),
        ([ONE], {"outputs": ["p"]}, "outputs, entry 0"),
        ([ONE], {"outputs": [{"name": "p"}, {"name": "p"}]}, "duplicate name 'p'"),
        ([ONE], {"outputs": [{"name": "p", "parameters": {"binary_data": "yes"}}]}, "output 'p'"),
        ([ONE], {"outputs": [{"name": "p", "parameters": {"classification": 3}}]}, "classification"),
        ([ONE], {"outputs": [{"name": "p", "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
    ],
)
def test_each_mistake_has_an_error_message(inputs: list[Any], more: dict[str, Any], message: str) -> None:
    assert message in refusal(*inputs, **more)


@pytest.mark.parametrize(
    ("of", "sent", "message"),
    [
        (TEXT, tensor("txt", "BYTES", [1], ["a"]), "'text' is missing; sent: 'txt' | rename 'txt' to 'text'"),
        (TEXT, tensor("text", "BYTES", [2, 2], list("abcd")), "input 'text': the model takes one string per row"),
        (TEXT, tensor("text", "INT8", [2], [1, 2]), "inputs, row 0, column 'text': expected a string"),
        (signature(column("long", "n")), tensor("n", "INT64", [2], [1, None]), "row 1, column 'n'"),
        (signature(column("long", "n")), tensor("n", "FP32", [2], [1, 2.5]), "row 1, column 'n'"),
        (signature(column("object", "o", properties={})), tensor("o", "BYTES", [2], ["{}", "{"]), "input 'o', row 1"),
        (
            signature(spec("float64", -1, 3)),
            tensor("x", "FP64", [1, 2], [1, 2]),
            "row 0, the tensor: expected a list of 3",
        ),
        (signature(spec("float64", 2, 1)), tensor("x", "FP64", [1, 1], [1]), "2 rows per request"),
    ],
)
def test_inputs_that_do_not_match_the_signature_are_rejected(of: Signature, sent: dict[str, Any], message: str) -> None:
    assert message in refusal(sent, of=of)


def test_the_error_for_an_unknown_input_suggests_the_closest_name() -> None:
    more = tensor("wieght", "FP64", [1], [1])
    sent = [tensor("text", "BYTES", [1], ["a"]), tensor("count", "INT8", [1], [1])]
    assert "no input 'wieght'" in refusal(*sent, more, of=MIXED)
    assert "rename it to 'weight'" in refusal(*sent, more, of=MIXED)
    assert "takes 1, but 2" in refusal(*sent, of=signature(spec("float64", -1, 2)))


def test_long_names_are_truncated_in_error_messages() -> None:
    long = "x" * 100_000
    for inputs in (
        [tensor(long, "INT8", [1], [999])],
        [tensor(long, "INT8", [1], [1])] * 2,
        [tensor(long, "INT8", [1], [1]), tensor("y", "INT8", [2], [1, 2])],
    ):
        assert len(refusal(*inputs)) < 500
    assert len(refusal(tensor(long, "BYTES", [1], ["a"]), of=TEXT)) < 500
    assert len(refusal(ONE, outputs=[{"name": long, "parameters": {"classification": 1}}])) < 500


HUGE = 2**62


@pytest.mark.parametrize(
    "shape",
    [
        [HUGE], [HUGE, HUGE, HUGE], [2**200], [-1], [1, -1], [-1, -1], [HUGE, 0], [0, -5], [2, 0], [True], [1, False],
        [1.0], ["1"], [None], [[1]], [], {"0": 1}, 1, None, "1", [1] * 9, [1] * 1000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("datatype", ["INT8", "FP64", "BYTES"])
def test_a_hostile_shape_is_rejected_without_allocating_memory(shape: Any, datatype: str) -> None:
    tracemalloc.start()
    try:
        assert "input 'x'" in refusal(tensor("x", datatype, shape, []))
        assert "input 'x'" in refusal(tensor("x", datatype, shape, binary_data_size=8), tail=bytes(8))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_many_single_element_lists_are_rejected_but_images_are_not() -> None:
    flat = [300_000, 1, 1, 1]
    assert "nested lists" in refusal(tensor("x", "INT8", flat, binary_data_size=300_000), tail=bytes(300_000))
    pixels = 200 * 28 * 28
    call = read(tensor("x", "UINT8", [200, 28, 28, 1], binary_data_size=pixels), tail=bytes(pixels))
    assert len(call.table) == 200


@pytest.mark.parametrize(
    ("datatype", "shape", "tail", "message"),
    [
        ("INT16", [2], b"123", "needs 4 bytes"),
        ("BOOL", [2], b"\1\2", "element 1: expected 0 or 1"),
        ("BYTES", [1], b"\5\0\0\0abcd", "element 0: expected a 4-byte length"),
        ("BYTES", [2], b"\4\0\0\0abcd\1", "element 1: expected a 4-byte length"),
        ("BYTES", [1], b"\1\0\0\0ab", "but 1 bytes follow"),
        ("BYTES", [3], b"\0" * 8, "needs at least 12 bytes"),
        ("BYTES", [1], b"\xff\xff\xff\xff", "element 0: expected a 4-byte length"),
        ("BYTES", [1], b"\1\0\0\0\xff", "element 0: not UTF-8"),
    ],
)
def test_binary_data_that_does_not_match_its_tensors_is_rejected(
    datatype: str, shape: list[int], tail: bytes, message: str
) -> None:
    assert message in refusal(tensor("x", datatype, shape, binary_data_size=len(tail)), tail=tail)


def test_missing_or_surplus_binary_data_is_rejected() -> None:
    assert "only 2 bytes are left" in refusal(tensor("x", "INT8", [3], binary_data_size=3), tail=b"12")
    assert "1 bytes after the JSON header belong to no input" in refusal(ONE, tail=b"1")


@pytest.mark.parametrize("header", ["", "-1", "x", "1e3", "0", "99999", "٣", "1" * 5000, "1_0", "+5"])
def test_an_invalid_header_length_is_rejected(header: str) -> None:
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
        decode_infer(json.dumps({"inputs": [ONE]}).encode(), header, NO_SIGNATURE)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"inputs": ', b"\xff", b"{}", b'"text"'])
def test_a_body_that_is_not_a_request_is_rejected(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_infer(body, None, NO_SIGNATURE)


SIGNATURES = [
    NO_SIGNATURE, TEXT, MIXED, signature(column("string")), signature(column("binary", "x")),
    signature(column("any", "x")), signature(column("long"), column("any")), signature(spec("float64", -1, 2)),
    signature(spec("object", -1)),
    signature(column("array", "x", items={"type": "long"})), signature(column("datetime", "x")),
    signature(column("map", "x", values={"type": "any"})), signature(spec("str", -1, 1, name="x")),
]  # fmt: skip
SIZE = st.integers(0, 3) | st.sampled_from([HUGE, -1, True, 1.5])
NAME = st.sampled_from(["x", "text", "count", "weight", "y"])
PARAMETERS = st.fixed_dictionaries(
    {}, optional={"binary_data_size": st.integers(-1, 20) | LEAF, "content_type": st.sampled_from(["base64", "pd", 1])}
)
INPUT = st.fixed_dictionaries(
    {
        "name": NAME,
        "datatype": st.sampled_from([*DTYPES, "BF16", "BYTES", "BYTES"]),
        "shape": st.lists(SIZE, max_size=3),
    },
    optional={"data": st.lists(LEAF | st.lists(LEAF, max_size=3), max_size=4) | ANY, "parameters": PARAMETERS | ANY},
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(INPUT | ANY, max_size=3) | ANY}, optional={"outputs": ANY, "parameters": ANY, "id": ANY}
)


@settings(max_examples=400)
@given(request=REQUEST | ANY, tail=st.binary(max_size=24), of=st.sampled_from(SIGNATURES))
@example(request={"inputs": [tensor("x", "BYTES", [1], ["1e999"])]}, tail=b"", of=SIGNATURES[-2])
@example(request={"inputs": [tensor("x", "INT64", [1], [10**400])]}, tail=b"", of=NO_SIGNATURE)
def test_arbitrary_requests_are_decoded_or_rejected(request: object, tail: bytes, of: Signature) -> None:
    header = json.dumps(request).encode()
    with contextlib.suppress(BadRequest):
        decode_infer(header + tail, str(len(header)), of)


@settings(max_examples=300)
@given(cut=st.integers(0, 200), flips=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4))
def test_a_corrupt_body_is_decoded_or_rejected(cut: int, flips: list[tuple[int, int]]) -> None:
    arrays = {"text": np.array(["a", "bc"], object), "count": np.array([1, 2], np.int64)}
    body, length = body_of(arrays)
    damaged = bytearray(body[: len(body) - cut % 40])
    for at, to in flips:
        damaged[at % len(damaged)] = to
    with contextlib.suppress(BadRequest):
        decode_infer(bytes(damaged), length, MIXED)
