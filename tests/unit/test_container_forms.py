"""Line-based request bodies, and response formats requested by Accept."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.container.forms import JSON_LINES, LINES, LineDecoder, accepted_media, encode_as
from likewise.core.errors import BadRequest, UnsupportedContentType
from likewise.core.signature import Signature
from likewise.wire import JSON, Form

CSV = "text/csv"


def signature(**columns: str) -> Signature:
    fields = [{"name": name, "type": kind, "required": True} for name, kind in columns.items()]
    return Signature.parse({"inputs": json.dumps(fields)})


TEXT = LineDecoder(signature(text="string"))
PAIR = LineDecoder(signature(x="double", name="string"))
UNKNOWN = LineDecoder(Signature())


def rows(decode: LineDecoder, body: str, content_type: str) -> list[tuple[object, ...]]:
    return list(decode(body.encode(), content_type).table.rows)


def test_csv_needs_no_header() -> None:
    assert rows(TEXT, 'What a movie!\n"bad, bad"\n', CSV) == [("What a movie!",), ("bad, bad",)]
    assert rows(PAIR, "1.5,a\n2,b", CSV) == [(1.5, "a"), (2.0, "b")]


def test_a_header_is_not_read_as_a_row() -> None:
    assert rows(TEXT, "text\nWhat a movie!\n", CSV) == [("What a movie!",)]
    assert rows(PAIR, "name,x\na,1.5\n", CSV) == [(1.5, "a")]
    assert rows(PAIR, "name,x,more\na,1.5,z\n", CSV)[0][:2] == (1.5, "a")


def test_the_content_type_may_specify_whether_there_is_a_header() -> None:
    assert rows(TEXT, "text\n", f"{CSV}; header=absent") == [("text",)]
    assert rows(TEXT, "text\na\n", f"{CSV}; charset=utf-8; header=present") == [("a",)]
    with pytest.raises(BadRequest, match="text"):
        rows(TEXT, "other\na\n", f"{CSV}; header=present")


def test_the_error_for_a_row_of_another_width_lists_the_columns() -> None:
    with pytest.raises(BadRequest) as refused:
        rows(PAIR, "1,a,b\n", CSV)
    assert "x, name" in refused.value.remedy


def test_a_model_without_columns_needs_a_header() -> None:
    assert rows(UNKNOWN, "a,b\n1,2\n", CSV) == [(1, 2)]
    with pytest.raises(BadRequest):
        rows(UNKNOWN, "1,2\n", f"{CSV}; header=absent")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1))
def test_any_text_is_preserved_by_csv_and_json_lines(texts: list[str]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([text] for text in texts)
    assert rows(TEXT, out.getvalue(), f"{CSV}; header=absent") == [(text,) for text in texts]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    for media in LINES:
        assert rows(TEXT, lines, media) == [(text,) for text in texts]


def test_json_lines_are_records_or_inputs() -> None:
    assert rows(PAIR, '{"name": "a", "x": 1}\n\n{"x": 2, "name": "b"}', JSON_LINES) == [(1.0, "a"), (2.0, "b")]
    assert rows(TEXT, '"a"\n"b"\n', JSON_LINES) == [("a",), ("b",)]


def test_the_error_for_an_invalid_line_names_it() -> None:
    with pytest.raises(BadRequest, match="line 1"):
        rows(TEXT, '{"text": "a"}\n{"text": \n', JSON_LINES)


def test_a_line_cannot_inject_into_the_document() -> None:
    with pytest.raises(BadRequest, match="line 0"):
        rows(TEXT, '{"text": "a"}], "x": [1\n', JSON_LINES)


def test_other_content_types_are_decoded_by_the_wire_package() -> None:
    call = TEXT(b'{"columns": ["text"], "data": [["a"]]}', "application/json; format=pandas-split")
    assert (list(call.table.rows), call.form) == ([("a",)], Form.LEGACY)
    with pytest.raises(UnsupportedContentType):
        TEXT(b"x", "application/x-recordio-protobuf")


@pytest.mark.parametrize(
    ("accept", "content_type", "media"),
    [
        (None, None, JSON),
        ("*/*", CSV, JSON),
        (None, JSON_LINES, JSON_LINES),
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
    with pytest.raises(UnsupportedContentType) as refused:
        accepted_media(accept, None)
    assert JSON_LINES in refused.value.remedy


def test_predictions_are_written_one_per_line() -> None:
    predictions = [{"a": 1, "b": 'x, "y"'}, {"a": None, "b": [1, 2]}]
    assert encode_as(CSV, Form.MLFLOW, predictions) == b'1,"x, ""y"""\n,"[1,2]"\n'
    assert encode_as(JSON_LINES, Form.MLFLOW, predictions) == b'{"a":1,"b":"x, \\"y\\""}\n{"a":null,"b":[1,2]}\n'
    assert json.loads(encode_as(JSON, Form.MLFLOW, predictions)) == {"predictions": predictions}
    assert encode_as(CSV, Form.LEGACY, ["a", 1.5, float("nan"), True]) == b'a\n1.5\n""\ntrue\n'
    assert encode_as(JSON_LINES, Form.LEGACY, "whole") == b'"whole"\n'


@given(st.lists(st.dictionaries(st.just("text"), st.text(st.characters(exclude_categories=["Cs"]))), min_size=1))
def test_there_are_as_many_lines_as_rows(predictions: list[dict[str, str]]) -> None:
    lines = encode_as(JSON_LINES, Form.MLFLOW, predictions).split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == predictions
    assert lines[-1] == b""
