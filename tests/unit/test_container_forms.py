"""Line-based request bodies, and response formats requested by Accept: as many answers as rows, or an error."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.container.forms import JSON_LINES, LINES, LineDecoder, accepted_media, encode_as
from likewise.core.errors import BadRequest, LikewiseError, UnsupportedContentType
from likewise.core.items import Table
from likewise.core.signature import Signature
from likewise.wire import JSON, DecodedRequest, Form

CSV = "text/csv"


def field(kind: str, name: str | None = None, *, required: bool = True, **more: Any) -> dict[str, Any]:
    named = {} if name is None else {"name": name}
    return {"type": kind, "required": required, **named, **more}


def signature(*inputs: dict[str, Any], outputs: Sequence[dict[str, Any]] | None = None) -> Signature:
    return Signature.parse({"inputs": list(inputs), "outputs": None if outputs is None else list(outputs)})


TEXT = signature(field("string", "text"))
PAIR = signature(field("double", "x"), field("string", "name"))
OPTIONAL = signature(field("string", "text"), field("string", "kind", required=False))
LOOSE = signature(field("string", "a", required=False), field("string", "b", required=False))
UNKNOWN = Signature()
MATRIX = signature({"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}})
UNNAMED = signature(field("string"))
VECTORS = signature(field("array", "v", items={"type": "long"}))


def rows(of: Signature, body: str, content_type: str) -> list[tuple[object, ...]]:
    return list(LineDecoder(of)(body.encode(), content_type).table.rows)


def refused(of: Signature, body: str, content_type: str = CSV) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        rows(of, body, content_type)
    return caught.value


# --- requests --------------------------------------------------------------------------------------------------------


def test_csv_needs_no_header() -> None:
    assert rows(TEXT, 'What a movie!\n"bad, bad"\n', CSV) == [("What a movie!",), ("bad, bad",)]
    assert rows(PAIR, "1.5,a\n2,b", CSV) == [(1.5, "a"), (2.0, "b")]


def test_a_header_is_not_read_as_a_row() -> None:
    assert rows(TEXT, "text\nWhat a movie!\n", CSV) == [("What a movie!",)]
    assert rows(PAIR, "name,x\na,1.5\n", CSV) == [(1.5, "a")]
    assert rows(PAIR, "name,x,more\na,1.5,z\n", CSV)[0][:2] == (1.5, "a")
    assert rows(OPTIONAL, "text\na\n", CSV) == [("a",)]


@pytest.mark.parametrize(
    ("of", "body", "present", "absent"),
    [
        (TEXT, "text\n", 0, 1),  # a header without rows, or a row
        (OPTIONAL, "text,good\nx,bad\n", 1, 2),
        (LOOSE, "a,x\ny,z\n", 1, 2),
        (LOOSE, "a,a\ny,z\n", None, 2),
        (PAIR, "x,title\n1,a\n", None, None),
        (TEXT, "\ntext\na\n", 1, 3),
        (UNKNOWN, "a,b\n1,2\n", 1, 2),
        (UNKNOWN, "What a movie!\n", 0, 1),
        (UNKNOWN, "0,1,2\n5,6,7\n", 1, 2),  # pandas' header of columns without names
        (UNNAMED, "What a movie!\nbad\n", 1, 2),
        (MATRIX, "x,y\n1,2\n", 1, None),
    ],
)
def test_a_first_line_that_may_be_a_header_or_a_row_is_refused_and_the_remedy_helps(
    of: Signature, body: str, present: int | None, absent: int | None
) -> None:
    error = refused(of, body)
    assert "either the names of the columns or a row" in error.cause
    for header, count in (("present", present), ("absent", absent)):
        content_type = f"{CSV}; header={header}"
        assert content_type in error.remedy
        if count is None:
            refused(of, body, content_type)
        else:
            assert len(rows(of, body, content_type)) == count


@pytest.mark.parametrize(
    ("of", "body", "expected"),
    [
        (UNKNOWN, "1,x\n2,y\n3,z\n", [(1, "x"), (2, "y"), (3, "z")]),
        (UNKNOWN, "true\nfalse\n", [(True,), (False,)]),
        (MATRIX, "1,2\n3,4\n5,6", [([1.0, 2.0],), ([3.0, 4.0],), ([5.0, 6.0],)]),
        (UNNAMED, "5\nsix\n", [("5",), ("six",)]),
    ],
)
def test_a_first_line_with_a_number_is_a_row_if_the_signature_names_no_columns(
    of: Signature, body: str, expected: list[tuple[object, ...]]
) -> None:
    assert rows(of, body, CSV) == expected


def test_the_content_type_may_specify_whether_there_is_a_header() -> None:
    assert rows(TEXT, "text\n", f"{CSV}; header=absent") == [("text",)]
    assert rows(TEXT, "text\n", f"{CSV}; header=present") == []
    assert rows(TEXT, "text\na\n", f"{CSV}; charset=utf-8; header=present") == [("a",)]
    assert rows(UNKNOWN, "a,b\n1,2\n", f'{CSV}; Header="Present"') == [(1, 2)]
    assert rows(UNKNOWN, "a,b\n1,2\n", f"{CSV}; header=absent") == [("a", "b"), ("1", "2")]
    assert "'text' is missing" in refused(TEXT, "other\na\n", f"{CSV}; header=present").cause
    with pytest.raises(UnsupportedContentType, match="header=maybe"):
        rows(TEXT, "a\n", f"{CSV}; header=maybe")


def test_the_error_for_a_row_of_another_width_lists_the_columns() -> None:
    assert "x, name" in refused(PAIR, "1,a,b\n").remedy
    assert "row 1: 1 fields for 2 columns" in refused(PAIR, "1,a\n2\n").cause


def test_a_blank_line_is_a_row_or_an_error() -> None:
    assert rows(TEXT, "a\n\nb\n\n", CSV) == [("a",), ("",), ("b",), ("",)]
    assert rows(TEXT, "\n", CSV) == [("",)]
    assert "row 1: 0 fields" in refused(PAIR, "1,a\n\n2,b\n").cause
    assert "empty" in refused(PAIR, "\n").cause
    assert "line 1 is blank" in refused(TEXT, '{"text": "a"}\n\n{"text": "b"}\n', JSON_LINES).cause
    assert "line 2 is blank" in refused(TEXT, '"a"\n"b"\n \n', JSON_LINES).cause


def test_a_field_may_be_as_long_as_the_body() -> None:
    csv.field_size_limit(131_072)  # the standard library's default, as in a new process
    assert rows(TEXT, "x" * 200_000, CSV) == [("x" * 200_000,)]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1))
def test_any_text_is_preserved_by_csv_and_json_lines(texts: list[str]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([text] for text in texts)
    assert rows(TEXT, out.getvalue(), f"{CSV}; header=absent") == [(text,) for text in texts]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    for media in LINES:
        assert rows(TEXT, lines, media) == [(text,) for text in texts]


def test_json_lines_are_records_or_inputs() -> None:
    assert rows(PAIR, '{"name": "a", "x": 1}\n{"x": 2, "name": "b"}', JSON_LINES) == [(1.0, "a"), (2.0, "b")]
    assert rows(TEXT, '"a"\n"b"\n', JSON_LINES) == [("a",), ("b",)]
    assert rows(UNKNOWN, "null\n[]\nNaN\nInfinity\n", JSON_LINES) == [(None,), ([],), (None,), (float("inf"),)]
    assert rows(UNKNOWN, "\ufeff1\r\n2", f"{JSON_LINES}; charset=utf-8") == [(1,), (2,)]
    assert rows(TEXT, "", JSON_LINES) == []


def test_keys_that_json_lines_lack_are_missing_and_their_order_does_not_matter() -> None:
    numbers, texts = (rows(UNKNOWN, f'{{"a": 1}}\n{{"b": {b}, "a": 3}}\n', JSON_LINES) for b in ("2", '"x"'))
    assert repr(numbers) == "[(1, nan), (3, 2.0)]"  # as pandas makes of them
    assert texts == [(1, None), (3, "x")]


def test_json_lines_that_the_model_takes_as_one_row_are_refused() -> None:
    assert rows(VECTORS, '{"v": [1]}\n{"v": [2]}\n', JSON_LINES) == [([1],), ([2],)]
    assert "the model takes the 2 lines as 1 row" in refused(VECTORS, "1\n2\n", JSON_LINES).cause


def test_the_error_for_an_invalid_line_names_it() -> None:
    assert "line 1" in refused(TEXT, '{"text": "a"}\n{"text": \n', JSON_LINES).cause


def test_a_line_cannot_inject_into_the_document() -> None:
    assert "line 0" in refused(TEXT, '{"text": "a"}], "x": [1\n', JSON_LINES).cause


def test_other_content_types_are_decoded_by_the_wire_package() -> None:
    call = LineDecoder(TEXT)(b'{"columns": ["text"], "data": [["a"]]}', "application/json; format=pandas-split")
    assert (list(call.table.rows), call.form) == ([("a",)], Form.LEGACY)
    with pytest.raises(UnsupportedContentType):
        LineDecoder(TEXT)(b"x", "application/x-recordio-protobuf")


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just([]))
CELLS = st.text(st.sampled_from(['"', ",", "\n", "\r", " ", "0", "1", ".", "z", "x"]), max_size=4)
WIDTHS = st.integers(1, 3)
ALL = [TEXT, PAIR, OPTIONAL, LOOSE, UNKNOWN, MATRIX, UNNAMED, VECTORS]


@given(
    of=st.sampled_from(ALL),
    table=st.integers(1, 3).flatmap(
        lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1)
    ),
    header=st.sampled_from(["", "; header=absent"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_each_csv_row_is_read_as_one_row_or_refused(
    of: Signature, table: list[list[str]], header: str, end: str
) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(table)
    try:
        read = rows(of, out.getvalue(), CSV + header)
    except BadRequest:
        return
    assert len(read) == len(table)


@given(of=st.sampled_from(ALL), values=st.lists(VALUES | st.dictionaries(st.sampled_from("abvx"), VALUES)))
def test_each_json_line_is_read_as_one_row_or_refused(of: Signature, values: list[object]) -> None:
    try:
        call = LineDecoder(of)("".join(json.dumps(value) + "\n" for value in values).encode(), JSON_LINES)
    except BadRequest:
        return
    assert len(call.table) == len(values)


# --- responses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "content_type", "media"),
    [
        (None, None, JSON),
        ("*/*", CSV, JSON),
        (None, JSON_LINES, JSON_LINES),
        (None, f"{JSON_LINES}; charset=utf-8", JSON_LINES),
        ("application/json", JSON_LINES, JSON),
        ("text/csv", JSON, CSV),
        ("application/x-ndjson", JSON, JSON_LINES),
        ("text/html, text/csv;q=0.5, application/json;q=0.4", JSON, CSV),
        ("text/html, */*;q=0.1", JSON, JSON),
        ("TEXT/CSV", JSON, CSV),
    ],
)
def test_accept_selects_the_response_format(accept: str | None, content_type: str | None, media: str) -> None:
    assert accepted_media(accept, content_type) == media


@pytest.mark.parametrize("accept", ["image/png", "text/csv;q=0", "", "application/json;q=x"])
def test_unsupported_accept_headers_are_rejected(accept: str) -> None:
    if not accept:  # the same as without the header
        assert accepted_media(accept, None) == JSON
        return
    with pytest.raises(UnsupportedContentType) as caught:
        accepted_media(accept, None)
    assert JSON_LINES in caught.value.remedy


def written(
    media: str, predictions: object, of: Signature = UNKNOWN, *, count: int | None = None, form: Form = Form.MLFLOW
) -> str:
    """The response to a request of `count` rows, by default the number of predictions."""
    size = count if count is not None else len(predictions) if isinstance(predictions, list) else 1
    return encode_as(media, DecodedRequest(Table(None, [(0,)] * size), form=form), predictions, of).decode()


def unwritable(media: str, predictions: object, of: Signature = UNKNOWN, **more: Any) -> UnsupportedContentType:
    with pytest.raises(UnsupportedContentType) as caught:
        written(media, predictions, of, **more)
    return caught.value


def test_predictions_are_written_one_per_line() -> None:
    predictions = [{"a": 1, "b": 'x, "y"'}, {"a": None, "b": [1, 2]}]
    assert written(CSV, predictions) == '1,"x, ""y"""\n,"[1,2]"\n'
    assert written(JSON_LINES, predictions) == '{"a":1,"b":"x, \\"y\\""}\n{"a":null,"b":[1,2]}\n'
    assert json.loads(written(JSON, predictions)) == {"predictions": predictions}
    assert written(CSV, ["a", 1.5, float("nan"), True, "", b"hi"]) == 'a\n1.5\n""\ntrue\n""\naGk=\n'
    assert written(CSV, [[1, "a"], [None, [2]]]) == "1,a\n,[2]\n"
    assert written(JSON_LINES, [None, float("nan"), [], {}, "a\nb"]) == 'null\nnull\n[]\n{}\n"a\\nb"\n'


def test_columns_of_records_have_one_order() -> None:
    outputs = [field("string", "label"), field("double", "score")]
    of = signature(field("string", "text"), outputs=outputs)
    assert written(CSV, [{"score": 1, "label": "a"}, {"label": "b"}, {}], of) == "a,1\nb,\n,\n"
    assert written(CSV, [{"b": 1, "a": 2}, {"a": 3, "b": 4}]) == "1,2\n4,3\n"
    assert "row 1 has 'more', but the signature has 'label', 'score'" in unwritable(CSV, [{}, {"more": 1}], of).cause
    assert "row 1 has 'b', but the first has 'a', 'b'" in unwritable(CSV, [{"a": 1, "b": 2}, {"b": 3}]).cause
    unnamed = signature(field("string", "text"), outputs=[field("string")])
    assert written(CSV, [{"b": 1, "a": 2}], unnamed) == "1,2\n"


@pytest.mark.parametrize(
    "predictions",
    [
        [{}, {}],
        [{"a": 1}, {"b": 1}],
        [{"a": 1}, None],
        [[1], [1, 2]],
        [[], []],
        [[1], 1],
        ["a\nb"],
        ["a", "b\r"],
        [{"a": "b\r\nc"}],
        [["a", "b\n"]],
    ],
)
def test_predictions_that_do_not_fit_in_lines_of_csv_are_an_error_and_the_remedy_helps(predictions: list[Any]) -> None:
    assert JSON_LINES in unwritable(CSV, predictions).remedy
    assert [json.loads(line) for line in written(JSON_LINES, predictions).split("\n")[:-1]] == predictions


@pytest.mark.parametrize("media", [CSV, JSON_LINES])
def test_a_model_that_takes_the_whole_request_returns_one_prediction_per_row(media: str) -> None:
    two = {"label": ["a", "b"], "score": [1, 2]}
    lines = {CSV: "a,1\nb,2\n", JSON_LINES: '{"label":"a","score":1}\n{"label":"b","score":2}\n'}
    assert written(media, two, count=2) == lines[media]
    assert written(media, "whole", count=1) == {CSV: "whole\n", JSON_LINES: '"whole"\n'}[media]
    assert written(media, {"label": "a"}, count=1) == {CSV: "a\n", JSON_LINES: '{"label":"a"}\n'}[media]
    assert written(media, [], count=0) == written(media, {}, count=0) == written(media, {"a": []}, count=0) == ""
    for predictions, returned in (
        (["a"], "1 predictions for 2 rows"),
        (["a", "b", "c"], "3 predictions for 2 rows"),
        ("a", "one prediction for 2 rows"),
        ({"a": [1, 2], "b": [1]}, "one prediction for 2 rows"),
        ({"a": 1}, "one prediction for 2 rows"),
        ({}, "one prediction for 2 rows"),
    ):
        error = unwritable(media, predictions, count=2)
        assert returned in error.cause
        assert JSON in error.remedy
        assert json.loads(written(JSON, predictions, count=2)) == {"predictions": predictions}
    assert "2 predictions for 1 rows" in unwritable(media, ["a", "b"], count=1).cause


ANSWERS = VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(st.sampled_from("ab"), VALUES)


@given(
    media=st.sampled_from([CSV, JSON_LINES]),
    of=st.sampled_from([UNKNOWN, signature(outputs=[field("string", "a"), field("string", "b")])]),
    predictions=st.lists(ANSWERS) | st.dictionaries(st.sampled_from("ab"), st.lists(VALUES, max_size=2)) | VALUES,
    count=st.integers(0, 3),
)
def test_there_are_as_many_lines_as_rows(media: str, of: Signature, predictions: object, count: int) -> None:
    size = len(predictions) if isinstance(predictions, list) else count
    try:
        text = written(media, predictions, of, count=size)
    except LikewiseError:
        return
    assert text.count("\n") == size
    if media == JSON_LINES:
        assert [json.loads(line) for line in text.split("\n")[:-1]] or not size
    else:
        lines = list(csv.reader(io.StringIO(text), strict=True))
        assert len(lines) == size
        assert len({len(line) for line in lines}) <= 1
        assert all(lines)
