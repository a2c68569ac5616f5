"""A golden set as requests: which are sent, and what becomes of refusals and other answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.core.errors import DeployFailed, InputInvalid, RowRefused, WrongUsage
from likewise.core.items import Table
from likewise.core.signature import Signature
from likewise.parity.client import ROWS, predict_by_requests
from likewise.parity.compare import RefusedRow
from likewise.parity.golden import Golden, golden_rows, logged_example
from likewise.targets.base import Answer
from likewise.wire import decode

KINDS = ("string", "long", "double", "boolean", "datetime", "binary")
ALL = Signature.parse({"inputs": json.dumps([{"name": kind, "type": kind, "required": True} for kind in KINDS])})
TEXT = Signature.parse({"inputs": json.dumps([{"name": "text", "type": "string", "required": True}])})


def texts(count: int) -> Golden:
    return Golden(Table(("text",), [(f"row {row}",) for row in range(count)]), "made up")


class Service:
    """Answers in capitals, refuses a request with the row `bad`; keeps how many rows it was asked."""

    def __init__(self, bad: str = "", answer: Callable[[list[str]], object] | None = None) -> None:
        self.bad, self.asked = bad, []
        self._answer = answer or (lambda rows: [row.upper() for row in rows])

    def __call__(self, body: bytes) -> Answer:
        rows = [row[0] for row in json.loads(body)["dataframe_split"]["data"]]
        self.asked.append(len(rows))
        if self.bad in rows:
            return Answer(
                500 if len(rows) == 1 else 422, "application/json", b'{"error_code": "ROW_REFUSED", "message": "no"}'
            )
        return Answer(200, "application/json", json.dumps({"predictions": self._answer(rows)}).encode())


def test_rows_are_asked_some_at_a_time() -> None:
    service = Service()
    assert predict_by_requests(texts(130), service, "there", row_wise=True) == [f"ROW {row}" for row in range(130)]
    assert service.asked == [ROWS, ROWS, 2]


def test_a_refused_row_is_found_and_costs_no_other_its_answer() -> None:
    service = Service(bad="row 70")
    found = predict_by_requests(texts(130), service, "there", row_wise=True)
    assert found[70] == RefusedRow("ROW_REFUSED")
    assert [each for each in found if not isinstance(each, RefusedRow)] == [f"ROW {r}" for r in range(130) if r != 70]
    assert service.asked == [ROWS, ROWS, *[1] * ROWS, 2]


def test_rows_that_depend_on_each_other_are_asked_at_once() -> None:
    service = Service(answer=len)
    assert predict_by_requests(texts(130), service, "there", row_wise=False) == [130]
    assert service.asked == [130]


def test_a_number_that_is_none_is_null() -> None:
    service = Service(answer=lambda rows: [float("nan")] * len(rows))
    assert predict_by_requests(texts(2), service, "there", row_wise=True) == [None, None]


@pytest.mark.parametrize(
    "reply",
    [
        Answer(503, "application/json", b'{"error_code": "OVERLOADED"}'),
        Answer(200, "application/json", b"<html>"),
        Answer(404, "application/json", b""),
    ],
)
def test_a_place_that_has_failed_is_an_error_and_no_difference(reply: Answer) -> None:
    with pytest.raises(DeployFailed, match=f"there responded with status {reply.status}"):
        predict_by_requests(texts(2), lambda _: reply, "there", row_wise=True)


VALUES = st.tuples(
    st.text(st.characters(codec="utf-8")),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    st.binary(),
)


@given(st.lists(VALUES, min_size=1, max_size=5), st.data())
def test_a_request_holds_the_rows_as_they_are(rows: list[tuple[object, ...]], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(rows) - 1))
    body = Golden(Table(KINDS, rows), "made up").body(first, 2)
    assert list(decode(body, None, ALL).table.rows) == rows[first : first + 2]


@pytest.mark.parametrize("name", ["g.csv", "g.jsonl"])
def test_a_file_is_read_as_a_job_reads_it(tmp_path: Path, name: str) -> None:
    lines = {
        "g.csv": "id,text\n1,a\n2,\n",
        "g.jsonl": '{"id": 1, "text": "a"}\n{"id": 2, "text": ""}\n',
    }
    (tmp_path / name).write_text(lines[name])
    golden = golden_rows(str(tmp_path / name), TEXT, {})
    assert (golden.table.columns, list(golden.table.rows)) == (("text",), [("a",), ("",)])


def test_a_column_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("review\na\n")
    assert list(golden_rows(str(tmp_path / "g.csv"), TEXT, {"review": "text"}).table.rows) == [("a",)]


def test_golden_sets_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text('{"text": "a"}\n{"text": 7}\n')
    with pytest.raises(RowRefused, match="row 2"):
        golden_rows(str(path), TEXT, {})
    path.write_text("\n")
    with pytest.raises(InputInvalid, match="no rows"):
        golden_rows(str(path), TEXT, {})


def test_the_models_own_example(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="without an input example") as caught:
        logged_example(tmp_path, TEXT)
    assert "--golden" in caught.value.remedy
    example = tmp_path / "serving_input_example.json"
    example.write_text('{"dataframe_split": {"columns": ["text"], "data": [["a"], ["b"]]}}')
    assert list(logged_example(tmp_path, TEXT).table.rows) == [("a",), ("b",)]
    example.write_text('{"messages": []}')
    with pytest.raises(WrongUsage, match="example"):
        logged_example(tmp_path, TEXT)


def test_params_of_the_example_are_those_that_are_not_the_usual(tmp_path: Path) -> None:
    params = [{"name": "k", "type": "long", "default": 5}, {"name": "p", "type": "double", "default": 0.5}]
    signature = Signature(TEXT.inputs, None, Signature.parse({"params": json.dumps(params)}).params)
    body = {"inputs": {"text": ["a"]}, "params": {"k": 5, "p": 0.25}}
    (tmp_path / "serving_input_example.json").write_text(json.dumps(body))
    golden = logged_example(tmp_path, signature)
    assert golden.params == {"p": 0.25}
    assert json.loads(golden.body(0, 1))["params"] == {"p": 0.25}
