"""Filters and joins of the emulated batch transform: the JSONPath that SageMaker documents, per format."""

from __future__ import annotations

from typing import Any

import pytest

from likewise.targets.sagemaker.emulator.records import Processing, RecordError, selector

ROW, RECORD = ["7", "a", "b"], {"id": 7, "features": [1, 2], "a.b": {"c": 3}}


@pytest.mark.parametrize(
    ("path", "value", "selected"),
    [
        ("$[0]", ROW, "7"),
        ("$[-1]", ROW, "b"),
        ("$[1:]", ROW, ["a", "b"]),
        ("$[:2]", ROW, ["7", "a"]),
        ("$[0,-1]", ROW, ["7", "b"]),
        ("$[2, 0:1]", ROW, ["b", "7"]),
        ("$[*]", ROW, ROW),
        ("$.features", RECORD, [1, 2]),
        ("$.features[1]", RECORD, 2),
        ("$['a.b'].c", RECORD, 3),
        ("$['id','features']", RECORD, {"id": 7, "features": [1, 2]}),
        ("$['a.b'].*", RECORD, [3]),
    ],
)
def test_a_path_selects(path: str, value: Any, selected: Any) -> None:
    assert selector(path)(value) == selected


@pytest.mark.parametrize("path", ["$[3]", "$[5:]", "$[0,7]", "$.id"])
def test_a_record_without_what_is_selected_is_an_error(path: str) -> None:
    with pytest.raises(RecordError, match="selects nothing"):
        selector(path)(ROW)


@pytest.mark.parametrize(
    "path", ["", "id", "$..id", "$[?(@.id)]", "$[*].id", "$[1:].id", "$[]", "$[1,]", "$[x]", "$[-]"]
)
def test_other_paths_are_rejected(path: str) -> None:
    with pytest.raises(RecordError, match="not supported"):
        selector(path)


def processing(content: str, accept: str, **more: str) -> Processing:
    return Processing.of(
        {"TransformInput": {"ContentType": content}, "TransformOutput": {"Accept": accept}, "DataProcessing": more}
    )


def test_without_filters_nothing_is_rewritten() -> None:
    unchanged = processing("application/x-image", "application/x-image")
    assert unchanged.sent(b"\xff\x00") == b"\xff\x00"
    assert unchanged.written([b"\xff"], b"\x01\n\n") == b"\x01\n\n"


def test_csv_fields_are_quoted_again() -> None:
    joined = processing("text/csv; header=absent", "text/csv", InputFilter="$[1]", JoinSource="Input")
    record = b'7,"a, ""b""",\n'
    assert joined.sent(record) == b'"a, ""b"""\n'
    assert joined.written([record], b'"1,2",3\n') == b'7,"a, ""b""",,"1,2",3\n'


def test_a_json_document_is_joined_as_a_whole() -> None:
    joined = processing("application/json", "application/json", JoinSource="Input")
    assert (
        joined.written([b'{"a":\n1}'], b'{"predictions":\n[2]}')
        == b'{"a": 1, "SageMakerOutput": {"predictions": [2]}}\n'
    )
    assert joined.written([b"[1]"], b"2") == b'{"SageMakerInput": [1], "SageMakerOutput": 2}\n'


def test_other_numbers_of_results_and_other_formats_are_errors() -> None:
    joined = processing("application/jsonlines", "application/jsonlines", JoinSource="Input")
    with pytest.raises(RecordError, match="2 records cannot be joined with the model's 1 results"):
        joined.written([b"1\n", b"2\n"], b"3\n")
    with pytest.raises(RecordError, match="not valid"):
        joined.written([b"{\n"], b"3\n")
    with pytest.raises(RecordError, match="one format"):
        processing("text/csv", "application/json", JoinSource="Input")
    with pytest.raises(RecordError, match="not 'application/x-image'"):
        processing("application/x-image", "text/csv", InputFilter="$[0]")
