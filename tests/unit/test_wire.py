"""Decoding of every request form, error messages for every mistake, and encoding of responses."""

import json
import math
from datetime import UTC, date, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from likewise.core.errors import BadRequest, LikewiseError, ModelFailed, UnsupportedContentType
from likewise.core.signature import Signature
from likewise.wire import DecodedRequest, Decoder, Form, decode, encode


def signature(*inputs: dict[str, object], params: list[dict[str, object]] | None = None) -> Signature:
    raw = {"inputs": json.dumps([{"required": True, **entry} for entry in inputs])}
    return Signature.parse(raw | ({"params": json.dumps(params)} if params else {}))


TEXT = signature({"type": "string", "name": "text"})
MIXED = signature(
    {"type": "string", "name": "text"},
    {"type": "long", "name": "count"},
    {"type": "double", "name": "weight", "required": False},
)
NO_SIGNATURE = Signature()


def read(body: object, of: Signature = TEXT, content_type: str | None = "application/json") -> DecodedRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode(raw, content_type, of)


def refusal(body: object, of: Signature = TEXT, content_type: str | None = "application/json") -> str:
    with pytest.raises(BadRequest) as caught:
        read(body, of, content_type)
    assert caught.value.remedy
    return caught.value.cause


ROWS = [("a",), ("b",)]


@pytest.mark.parametrize(
    ("body", "content_type", "form"),
    [
        ({"dataframe_split": {"columns": ["text"], "data": [["a"], ["b"]]}}, "application/json", Form.MLFLOW),
        ({"dataframe_split": {"columns": ["text"], "data": ["a", "b"]}}, "application/json", Form.MLFLOW),
        ({"dataframe_records": [{"text": "a"}, {"text": "b"}]}, "application/json; charset=utf-8", Form.MLFLOW),
        ({"inputs": {"text": ["a", "b"]}}, None, Form.MLFLOW),
        ({"inputs": [{"text": "a"}, {"text": "b"}]}, None, Form.MLFLOW),
        ({"inputs": ["a", "b"]}, None, Form.MLFLOW),
        ({"instances": ["a", "b"]}, "", Form.MLFLOW),
        ({"instances": [{"text": "a"}, {"text": "b"}], "signature_name": "x"}, None, Form.MLFLOW),
        ({"instances": {"text": ["a", "b"]}}, None, Form.MLFLOW),
        (b"text\na\nb\n", "text/csv", Form.MLFLOW),
        ({"columns": ["text"], "data": [["a"], ["b"]]}, "application/json", Form.LEGACY),
        ({"columns": ["text"], "index": [5, 6], "data": [["a"], ["b"]]}, None, Form.LEGACY),
        ([{"text": "a"}, {"text": "b"}], "application/json", Form.LEGACY),
        ({"columns": ["text"], "data": [["a"], ["b"]]}, "application/json; format=pandas-split", Form.LEGACY),
        ([{"text": "a"}, {"text": "b"}], 'application/json;format="pandas-records"', Form.LEGACY),
        ('{"text":{"0":"a","1":"b"}}', "application/json", Form.LEGACY),
        ('{"0":{"text":"a"},"1":{"text":"b"}}', "application/json", Form.LEGACY),
        ('[{"text":"a"},{"text":"b"}]', "application/json", Form.LEGACY),
        ('{"columns":["text"],"index":[0,1],"data":[["a"],["b"]]}', "application/json", Form.LEGACY),
        ('{"dataframe_records":[{"text":"a"},{"text":"b"}]}', "application/json", Form.MLFLOW),
    ],
)
def test_all_forms_decode_to_the_same_table(body: object, content_type: str | None, form: Form) -> None:
    call = read(body, TEXT, content_type)
    assert call.table.columns == ("text",)
    assert list(call.table.rows) == ROWS
    assert call.form is form


def test_columns_are_reordered_by_the_signature_and_others_are_dropped() -> None:
    call = read({"dataframe_split": {"columns": ["x", "count", "text"], "data": [[0, 1, "a"]]}}, MIXED)
    assert call.table.columns == ("text", "count")  # `weight` is optional, and was not sent
    assert list(call.table.rows) == [("a", 1)]


def test_a_key_missing_from_a_record_is_null() -> None:
    call = read([{"text": "a", "count": 1, "weight": 0.5}, {"text": "b", "count": 2}], MIXED)
    assert list(call.table.rows) == [("a", 1, 0.5), ("b", 2, None)]


@pytest.mark.parametrize(
    ("kind", "sent", "expected"),
    [
        ("double", 1, 1.0),
        ("double", "2.5", 2.5),
        ("double", None, None),
        ("long", 5.0, 5),
        ("long", " 7 ", 7),
        ("long", -(2**63), -(2**63)),
        ("boolean", 1, True),
        ("string", None, None),
        ("string", "", ""),
        ("datetime", "2026-11-22T10:00:00+02:00", datetime(2026, 11, 22, 8)),
        ("datetime", "2026-11-22", datetime(2026, 11, 22)),
        ("datetime", 1_000_000_000, datetime(1970, 1, 1, 0, 0, 1)),
        ("binary", "aGk=", b"hi"),
        ("any", {"a": [None]}, {"a": [None]}),
    ],
)
def test_values_are_cast_to_the_signatures_types(kind: str, sent: object, expected: object) -> None:
    call = read({"dataframe_records": [{"v": sent}]}, signature({"type": kind, "name": "v"}))
    (value,) = call.table.rows[0]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("string", 5),
        ("string", ["a"]),
        ("double", "abc"),
        ("double", "1_0"),
        ("double", [1]),
        ("double", 10**400),
        ("long", 1.5),
        ("long", None),
        ("long", 2**63),
        ("long", 1e300),
        ("integer", 2**31),
        ("boolean", "no"),
        ("boolean", 2),
        ("boolean", None),
        ("datetime", "yesterday"),
        ("datetime", True),
        ("datetime", 1e300),
        ("binary", "not base64!"),
        ("binary", "\ud7ff"),
    ],
)
def test_the_error_for_a_wrong_value_names_column_and_row(kind: str, wrong: object) -> None:
    good = {"string": "", "boolean": True, "datetime": "2026-01-01", "binary": ""}.get(kind, 1)
    cause = refusal({"dataframe_records": [{"v": good}, {"v": wrong}]}, signature({"type": kind, "name": "v"}))
    if wrong != 10**400:  # not accepted as a JSON number
        assert "row 1, column 'v'" in cause


NESTED = signature(
    {
        "name": "v",
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"type": "string"}, "required": True},
            "size": {"type": "double", "required": False},
            "more": {"type": "map", "values": {"type": "long"}, "required": False},
        },
    }
)


def test_nested_values_are_cast() -> None:
    value = {"tags": ["a"], "size": 1, "more": {"x": 2.0}}
    for body in (
        {"inputs": {"v": value}},
        {"inputs": [{"v": value}]},
        {"dataframe_split": {"columns": ["v"], "data": [[value]]}},
    ):
        (expected,) = read(body, NESTED).table.rows[0]
        assert expected == {"tags": ["a"], "size": 1.0, "more": {"x": 2}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "with the property 'tags'"),
        ({"tags": ["a", 1]}, "a string in element 1 in property 'tags'"),
        ({"tags": [], "colour": 1}, "without the property 'colour'"),
        ({"tags": [], "more": {"x": "y"}}, "in key 'x' in property 'more'"),
        ({"tags": "a"}, "a list in property 'tags'"),
        ([], "an object"),
        (None, "object"),
    ],
)
def test_the_error_for_a_wrong_nested_value_names_its_path(value: object, message: str) -> None:
    assert message in refusal({"dataframe_records": [{"v": value}]}, NESTED)


@pytest.mark.parametrize(
    ("of", "inputs", "rows"),
    [
        ({"type": "long"}, [1, 2.0], [(1,), (2,)]),
        ({"type": "string"}, "one", [("one",)]),
        ({"type": "object", "properties": {"a": {"type": "long"}}}, [{"a": 1}], [({"a": 1},)]),
        ({"type": "array", "items": {"type": "long"}}, [[1, 2], [3]], [([1, 2],), ([3],)]),
    ],
)
def test_unnamed_columns_are_read_by_position(of: dict[str, object], inputs: object, rows: list[object]) -> None:
    table = read({"inputs": inputs}, signature(of)).table
    assert table.columns is None
    assert list(table.rows) == rows


def test_several_unnamed_columns_take_rows_of_values() -> None:
    of = signature({"type": "long"}, {"type": "string"})
    assert list(read({"inputs": [[1, "a"], [2, "b"]]}, of).table.rows) == [([1, "a"],), ([2, "b"],)]
    split = read({"dataframe_split": {"columns": ["x", "y", "z"], "data": [[1, "a", 0]]}}, of).table
    assert (split.columns, list(split.rows)) == (("x", "y"), [(1, "a")])
    assert "row 1: the model takes 2 columns" in refusal({"inputs": [[1, "a"], [2]]}, of)


def test_a_flat_list_for_the_only_array_column_is_one_row() -> None:
    of = signature({"type": "array", "items": {"type": "long"}, "name": "v"})
    for body in ({"inputs": [1, 2]}, {"inputs": {"v": [1, 2]}}, {"dataframe_records": [{"v": [1, 2]}]}):
        assert list(read(body, of).table.rows) == [([1, 2],)]


def tensor(dtype: str, *shape: int, name: str | None = None) -> dict[str, object]:
    entry: dict[str, object] = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}
    return entry | ({"name": name} if name else {})


def test_tensors_are_read_by_row() -> None:
    of = signature(tensor("float32", -1, 2, 2))
    rows = [([[1.0, 2.0], [3.0, 4.0]],)]
    assert list(read({"inputs": [[[1, 2], [3, 4]]]}, of).table.rows) == rows
    assert list(read({"instances": [[[1, 2], [3, 4]]]}, of).table.rows) == rows
    assert list(read({"dataframe_split": {"columns": ["x"], "data": [[[1, 2, 3, 4]]]}}, of).table.rows) == rows
    wide = read(
        {"dataframe_split": {"columns": ["x", "y"], "data": [[1, 2], [3, 4]]}}, signature(tensor("int64", -1, 2))
    )
    assert wide.table.columns is None
    assert list(wide.table.rows) == [([1, 2],), ([3, 4],)]


def test_named_tensors_are_columns() -> None:
    of = signature(tensor("float64", -1, 2, name="a"), tensor("int8", -1, name="b"))
    table = read({"inputs": {"b": [1, 2], "a": [[1, 2], [3, 4]]}}, of).table
    assert table.columns == ("a", "b")
    assert list(table.rows) == [([1.0, 2.0], 1), ([3.0, 4.0], 2)]


@pytest.mark.parametrize(
    ("of", "rows", "message"),
    [
        (tensor("float64", -1, 3), [[1, 2, 3], [1, 2]], "row 1, the tensor: expected a list of 3"),
        (tensor("float64", -1, -1, -1), [[[1, 2], [1]]], "lists of equal length"),
        (tensor("float64", -1), [[1]], "a single value"),
        (tensor("uint8", -1), [256], "from 0 to 255"),
        (tensor("float64", 2), [1, 2, 3], "2 rows per request"),
    ],
)
def test_a_tensor_of_another_shape_is_rejected(of: dict[str, object], rows: object, message: str) -> None:
    assert message in refusal({"inputs": rows}, signature(of))


PARAMS = signature(
    {"type": "string", "name": "text"},
    params=[
        {"name": "threshold", "type": "double", "default": 0.5, "shape": None},
        {"name": "top", "type": "long", "default": 3, "shape": None},
        {"name": "labels", "type": "string", "default": ["a"], "shape": [-1]},
    ],
)


def test_params_are_cast_and_filled_with_defaults_and_unknown_ones_ignored() -> None:
    call = read({"inputs": ["a"], "params": {"threshold": 1, "x": 1}}, PARAMS)
    assert call.params == {"threshold": 1.0, "top": 3, "labels": ["a"]}
    assert read({"inputs": ["a"], "params": {"threshold": 1}}, TEXT).params == {}


@pytest.mark.parametrize(
    "params", [[], "x", {"top": "3"}, {"top": True}, {"top": 1.5}, {"labels": "a"}, {"labels": [1]}, {"threshold": "1"}]
)
def test_the_error_for_wrong_params_names_them(params: object) -> None:
    assert "params" in refusal({"inputs": ["a"], "params": params}, PARAMS)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b'{"inputs": ', "line 1, column"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"inputs": ["\\ud800"]}', "not valid JSON"),
        (b'{"inputs": ["\\ud800", NaN]}', "not valid JSON"),
        (b'{"inputs": [1e999]}', "infinity"),
        (b'{"inputs": [1e999, NaN]}', "too large"),
        (b"[" * 100_000 + b"]" * 100_000, "not valid JSON"),
        (b"[" * 100_000 + b"NaN" + b"]" * 100_000, "not valid JSON"),
        (b"5", "5 (an integer)"),
        (b"null", "null"),
        (b'"plain text"', "whose content is not JSON"),
        (b'"\\"again\\""', "a string"),
        (b"{}", "no fields"),
        (b'{"dataframe_spilt": {}}', "'dataframe_spilt'"),
        (b'{"inputs": ["a"], "instances": ["a"]}', "both inputs and instances"),
        (b'{"dataframe_split": []}', "dataframe_split: expected an object"),
        (b'{"dataframe_split": {"columns": ["text"]}}', "dataframe_split.data"),
        (b'{"dataframe_split": {"columns": "text", "data": []}}', "dataframe_split.columns"),
        (b'{"dataframe_split": {"columns": ["text"], "data": [], "rows": 1}}', "'rows' is not a field"),
        (b'{"dataframe_split": {"columns": ["text"], "data": [["a"], ["a", "b"]]}}', "row 1: 2 values for 1 columns"),
        (b'{"dataframe_split": {"columns": ["text"], "data": [["a"]], "index": [1, 2]}}', "dataframe_split.index"),
        (b'{"dataframe_split": {"columns": ["text", "text"], "data": []}}', "duplicate column 'text'"),
        (b'{"dataframe_records": {}}', "dataframe_records: expected a list"),
        (b'{"dataframe_records": [{"text": "a"}, 1]}', "dataframe_records, row 1"),
        (b'{"dataframe_records": [{"txet": "a"}]}', "'text' is missing; sent: 'txet'"),
        (b'{"dataframe_records": []}', "there are no rows"),
        (b'{"inputs": 5}', "inputs: expected rows or columns"),
        (b'{"inputs": {"text": ["a"], "b": ["a", "b"]}}', "differ in length"),
        (b"[]", "there are no rows"),
        (b"[1]", "row 0"),
    ],
)
def test_each_mistake_has_an_error_message(body: bytes, message: str) -> None:
    assert message in refusal(body)


def test_the_remedy_suggests_the_closest_name() -> None:
    with pytest.raises(BadRequest) as caught:
        read([{"txet": "a"}])
    assert caught.value.remedy == "rename 'txet' to 'text'"


def test_a_column_that_the_model_needs_is_not_renamed() -> None:
    columns = [{"type": "double", "name": name, "required": True} for name in ("width a", "width b")]
    signature = Signature.parse({"inputs": json.dumps(columns)})
    with pytest.raises(BadRequest, match="'width b' is missing") as caught:
        Decoder(signature)(b'{"inputs": [{"width a": 1}]}', None)
    assert caught.value.remedy == "send the column 'width b'"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("[1, null, 2.5]", [1.0, math.nan, 2.5]),
        ("[null, 3]", [math.nan, 3.0]),
        ("[NaN, 3]", [math.nan, 3]),
        ("[NaN]", [math.nan]),
        ("[null]", [None]),
        ('["a", null]', ["a", None]),
        ("[true, null]", [True, None]),
        ("[9007199254740993, null]", [9007199254740993, None]),
        ("[1, 2]", [1, 2]),
        ("[[1], null]", [[1], None]),
    ],
)
def test_null_among_numbers_of_a_request_is_nan_without_a_signature(cells: str, expected: list[object]) -> None:
    values = json.loads(cells)
    for body in (
        {"dataframe_split": {"columns": ["x"], "data": [[value] for value in values]}},
        {"dataframe_records": [{"x": value} for value in values]},
        [{"x": value} for value in values],
    ):
        got = [row[0] for row in decode(json.dumps(body).encode(), None, Signature()).table.rows]
        assert repr(got) == repr(expected)


def test_an_empty_table_is_accepted() -> None:
    assert len(read({"dataframe_split": {"columns": ["text"], "data": []}}).table) == 0
    assert read({"inputs": []}).table.columns == ("text",)


def test_without_a_signature_values_are_not_cast() -> None:
    assert list(read({"inputs": [[1, 2], [3, 4]]}, NO_SIGNATURE).table.rows) == [([1, 2],), ([3, 4],)]
    table = read({"dataframe_split": {"data": [[1, "a"]]}}, NO_SIGNATURE).table
    assert table.columns == ("0", "1")
    assert list(table.rows) == [(1, "a")]


def test_pythons_nan_and_infinity_are_accepted() -> None:
    of = signature({"type": "double", "name": "v"})
    assert list(read(b'{"inputs": [NaN, -Infinity, 1.5]}', of).table.rows) == [(None,), (-math.inf,), (1.5,)]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=ebcdic", "text/csv; header=no",
     "application/json; format=pandas-other", "text/csv; format=pandas-split"],
)  # fmt: skip
def test_other_content_types_are_rejected(content_type: str) -> None:
    with pytest.raises(UnsupportedContentType):
        read({"inputs": ["a"]}, TEXT, content_type)


def test_csv_is_typed_by_the_signature() -> None:
    body = '\ufefftext,count,weight\r\n"a ""b"", c\nd",1,\r\n,2,0.5\r\nNA,3,NaN\r\n'.encode()
    rows = list(read(body, MIXED, "text/csv").table.rows)
    assert rows == [('a "b", c\nd', 1, None), ("", 2, 0.5), ("NA", 3, None)]


def test_csv_without_a_signature_is_typed_by_its_values() -> None:
    body = b"a,b,c,d,e\n1,1.5,true,x,\n2,,FALSE,7,\n"
    rows = list(read(body, NO_SIGNATURE, "text/csv").table.rows)
    assert repr(rows) == repr([(1, 1.5, True, "x", math.nan), (2, math.nan, False, "7", math.nan)])


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1000", 1000),
        ("1_000", "1_000"),
        ("\u0661\u0662", "\u0661\u0662"),
        ("+5", 5),
        ("+-5", "+-5"),
        ("1_0.5", "1_0.5"),
    ],
)
def test_csv_without_a_signature_takes_only_plain_numbers_as_numbers(cell: str, value: object) -> None:
    assert list(read(f"v\n{cell}\n".encode(), NO_SIGNATURE, "text/csv").table.rows) == [(value,)]


@pytest.mark.parametrize(
    ("body", "of", "columns", "rows"),
    [
        ("a\nb", TEXT, ("text",), [("a",), ("b",)]),
        ("text\n", TEXT, ("text",), [("text",)]),
        ("1,2.5\n3,x", NO_SIGNATURE, ("0", "1"), [(1, "2.5"), (3, "x")]),
        ("1,2\n3,4", signature(tensor("float64", -1, 2)), None, [([1.0, 2.0],), ([3.0, 4.0],)]),
        ("1\nx", signature({"type": "string"}), ("0",), [("1",), ("x",)]),
    ],
)
def test_csv_without_a_header(body: str, of: Signature, columns: object, rows: list[tuple[object, ...]]) -> None:
    for content_type in ("text/csv; header=absent", 'text/csv;charset=utf-8; Header="ABSENT"'):
        table = read(body.encode(), of, content_type).table
        assert (table.columns, list(table.rows)) == (columns, rows)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_a_blank_line_of_a_csv_is_a_row_if_there_is_one_column(end: str, last: bool) -> None:
    body = end.join(["text", "", "a", "", "b"]) + (end if last else "")
    assert list(read(body.encode(), TEXT, "text/csv").table.rows) == [("",), ("a",), ("",), ("b",)]
    number = signature({"name": "v", "type": "double"})
    assert list(read(f"v{end}{end}1{end}".encode(), number, "text/csv").table.rows) == [(None,), (1.0,)]
    pair = end.join(["", "a,b", "", "1,2", "", "3,4"]) + (end if last else "")
    assert list(read(pair.encode(), NO_SIGNATURE, "text/csv").table.rows) == [(1, 2), (3, 4)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_breaks_in_quotes_and_byte_order_marks_do_not_change_the_number_of_rows(end: str) -> None:
    body = f'\ufeff"a{end}b"{end}c'.encode()
    assert list(read(body, TEXT, "text/csv; header=absent").table.rows) == [(f"a{end}b",), ("c",)]


def test_csv_in_another_charset() -> None:
    assert list(read("text\ncafé\n".encode("latin-1"), TEXT, "text/csv; charset=ISO-8859-1").table.rows) == [("café",)]
    assert "not valid UTF-8" in refusal("text\ncafé\n".encode("latin-1"), TEXT, "text/csv")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty"),
        (b"text,count\na\n", "row 0: 1 fields for 2 columns"),
        (b'text\n"a', "cannot be read"),
        (b'text\n"a"b\n', "cannot be read"),
        (b"other\na\n", "'text' is missing"),
    ],
)
def test_each_csv_mistake_has_an_error_message(body: bytes, message: str) -> None:
    assert message in refusal(body, TEXT, "text/csv")


def test_long_csv_fields_are_accepted() -> None:
    long = "x" * 1_000_000
    assert list(read(f"text\n{long}\n".encode(), TEXT, "text/csv").table.rows) == [(long,)]


def test_responses_have_the_form_of_the_request() -> None:
    records = [{"text": "a"}]
    assert json.loads(encode(Form.MLFLOW, records)) == {"predictions": records}
    assert json.loads(encode(Form.LEGACY, records)) == records


def test_values_without_a_json_type_are_encoded_as_text_or_null() -> None:
    values = [math.nan, math.inf, b"hi", datetime(2026, 1, 2, 3), datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2)]
    written = json.loads(encode(Form.LEGACY, values))
    assert written == [None, None, "aGk=", "2026-01-02T03:00:00", "2026-01-02T00:00:00+00:00", "2026-01-02"]


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [("\ud800", "lone surrogate U+D800"), (object(), "type object"), (nested(100_000), "nested too deeply")],
)
def test_values_that_cannot_be_encoded_are_a_model_failure(value: object, message: str) -> None:
    with pytest.raises(ModelFailed) as caught:
        encode(Form.MLFLOW, [value])
    assert message in caught.value.cause


def test_wide_integers_and_deep_lists_are_encoded_as_in_mlflow() -> None:
    values = [2**70, nested(400), math.nan, b"hi", date(2026, 1, 2), datetime(2026, 1, 2, 3), "ß"]
    written = json.loads(encode(Form.MLFLOW, values))["predictions"]
    assert written == [2**70, nested(400), None, "aGk=", "2026-01-02", "2026-01-02T03:00:00", "ß"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("text"), inner, max_size=4)
    ),
    max_leaves=20,
)
FORM_KEYS = st.sampled_from(
    ["dataframe_split", "dataframe_records", "inputs", "instances", "columns", "data", "params"]
)
BODIES = st.dictionaries(FORM_KEYS, JSON_VALUES | st.dictionaries(FORM_KEYS, JSON_VALUES), max_size=3) | JSON_VALUES
CONTENT_TYPES = st.sampled_from(
    [None, "application/json", "text/csv", "application/json; format=pandas-split", "text/csv; charset=utf-16",
     "application/json; format=pandas-records", "application/json; charset=latin-1", ";;=;"]
) | st.text(max_size=20)  # fmt: skip
SIGNATURES = st.sampled_from(
    [TEXT, MIXED, NESTED, PARAMS, NO_SIGNATURE, signature({"type": "double"}), signature(tensor("float64", -1, 2)),
     signature(tensor("object", -1)), signature({"type": "long"}, {"type": "any"})]
    + [signature({"type": kind, "name": "v"}) for kind in ("datetime", "binary", "boolean", "any", "long", "float")]
    + [signature({"type": "array", "items": {"type": "double"}, "name": "text"})]
)  # fmt: skip


def check_decodes_or_rejects(body: bytes, content_type: str | None, of: Signature) -> None:
    try:
        call = decode(body, content_type, of)
    except LikewiseError as error:
        assert 400 <= error.status < 500  # noqa: PT017
        assert error.cause  # noqa: PT017
        assert error.remedy  # noqa: PT017
        return
    width = 1 if call.table.columns is None else len(call.table.columns)
    assert all(isinstance(row, tuple) and len(row) == width for row in call.table.rows)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200), CONTENT_TYPES, SIGNATURES)
@example(b'"\\u0000"', None, TEXT)
@example(b"a\x00b\n1\n", "text/csv", NO_SIGNATURE)
def test_arbitrary_bytes_are_decoded_or_rejected(body: bytes, content_type: str | None, of: Signature) -> None:
    check_decodes_or_rejects(body, content_type, of)


@pytest.mark.slow
@settings(max_examples=800, deadline=None)
@given(BODIES, CONTENT_TYPES, SIGNATURES, st.booleans())
def test_arbitrary_json_is_decoded_or_rejected(
    body: object, content_type: str | None, of: Signature, quoted: bool
) -> None:
    text = json.dumps(body)
    check_decodes_or_rejects((json.dumps(text) if quoted else text).encode(), content_type, of)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=5))
def test_any_text_survives_csv_and_json(rows: list[list[str]]) -> None:
    import csv
    import io

    of = signature({"type": "string", "name": "a"}, {"type": "string", "name": "b"})
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["a", "b"], *rows])
    expected = [tuple(row) for row in rows]
    assert list(decode(stream.getvalue().encode(), "text/csv", of).table.rows) == expected
    assert list(read({"columns": ["a", "b"], "data": rows}, of).table.rows) == expected
