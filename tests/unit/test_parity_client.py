"""Golden sets as requests: which requests are sent, and how refusals and other responses are handled."""

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
from likewise.parity.verify_options import VerifyOptions
from likewise.targets.base import Response
from likewise.wire import decode

KINDS = ("string", "long", "double", "boolean", "datetime", "binary")
ALL = Signature.parse({"inputs": json.dumps([{"name": kind, "type": kind, "required": True} for kind in KINDS])})
TEXT = Signature.parse({"inputs": json.dumps([{"name": "text", "type": "string", "required": True}])})


def texts(count: int) -> Golden:
    return Golden(Table(("text",), [(f"row {row}",) for row in range(count)]), "made up")


class Service:
    """A model that returns texts in capitals and refuses requests with the row `bad`. sizes: rows of each request."""

    def __init__(self, bad: str = "", predict: Callable[[list[str]], object] | None = None) -> None:
        self.bad, self.sizes = bad, []
        self._predict = predict or (lambda rows: [row.upper() for row in rows])

    def __call__(self, body: bytes) -> Response:
        rows = [row[0] for row in json.loads(body)["dataframe_split"]["data"]]
        self.sizes.append(len(rows))
        if self.bad in rows:
            return Response(
                500 if len(rows) == 1 else 422, "application/json", b'{"error_code": "ROW_REFUSED", "message": "no"}'
            )
        return Response(200, "application/json", json.dumps({"predictions": self._predict(rows)}).encode())


def test_rows_are_sent_in_batches() -> None:
    service = Service()
    assert predict_by_requests(texts(130), service, "there", row_wise=True) == [f"ROW {row}" for row in range(130)]
    assert service.sizes == [ROWS, ROWS, 2]


def test_refused_row_does_not_affect_other_rows() -> None:
    service = Service(bad="row 70")
    predictions = predict_by_requests(texts(130), service, "there", row_wise=True)
    assert predictions[70] == RefusedRow("ROW_REFUSED")
    assert [each for each in predictions if not isinstance(each, RefusedRow)] == [
        f"ROW {r}" for r in range(130) if r != 70
    ]
    assert service.sizes == [ROWS, ROWS, *[1] * ROWS, 2]


def test_dependent_rows_are_sent_in_one_request() -> None:
    service = Service(predict=len)
    assert predict_by_requests(texts(130), service, "there", row_wise=False) == [130]
    assert service.sizes == [130]


def test_nan_is_read_as_null() -> None:
    service = Service(predict=lambda rows: [float("nan")] * len(rows))
    assert predict_by_requests(texts(2), service, "there", row_wise=True) == [None, None]


@pytest.mark.parametrize(
    "response",
    [
        Response(503, "application/json", b'{"error_code": "OVERLOADED"}'),
        Response(200, "application/json", b"<html>"),
        Response(404, "application/json", b""),
    ],
)
def test_failing_backend_is_an_error(response: Response) -> None:
    with pytest.raises(DeployFailed, match=f"there responded with status {response.status}"):
        predict_by_requests(texts(2), lambda _: response, "there", row_wise=True)


VALUES = st.tuples(
    st.text(st.characters(codec="utf-8")),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    st.binary(),
)


@given(st.lists(VALUES, min_size=1, max_size=5), st.data())
def test_request_preserves_the_rows(rows: list[tuple[object, ...]], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(rows) - 1))
    body = Golden(Table(KINDS, rows), "made up").body(first, 2)
    assert list(decode(body, None, ALL).table.rows) == rows[first : first + 2]


@pytest.mark.parametrize("name", ["g.csv", "g.jsonl"])
def test_golden_file_is_read_like_job_input(tmp_path: Path, name: str) -> None:
    lines = {
        "g.csv": "id,text\n1,a\n2,\n",
        "g.jsonl": '{"id": 1, "text": "a"}\n{"id": 2, "text": ""}\n',
    }
    (tmp_path / name).write_text(lines[name])
    golden = golden_rows(str(tmp_path / name), TEXT, {})
    assert (golden.table.columns, list(golden.table.rows)) == (("text",), [("a",), ("",)])


def test_golden_columns_can_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("review\na\n")
    assert list(golden_rows(str(tmp_path / "g.csv"), TEXT, {"review": "text"}).table.rows) == [("a",)]


def test_golden_rows_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    path.write_text("5\nb\n")
    assert list(golden_rows(str(path), TEXT, {}, "absent").table.rows) == [("5",), ("b",)]
    with pytest.raises(InputInvalid, match="the first line seems to be a row"):
        golden_rows(str(path), TEXT, {})
    with pytest.raises(WrongUsage, match="header"):
        VerifyOptions(header="no")


def test_invalid_golden_sets_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text('{"text": "a"}\n{"text": 7}\n')
    with pytest.raises(RowRefused, match="row 2"):
        golden_rows(str(path), TEXT, {})
    path.write_text("\n")
    with pytest.raises(InputInvalid, match="no rows"):
        golden_rows(str(path), TEXT, {})


def test_logged_input_example_is_used(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="without an input example") as caught:
        logged_example(tmp_path, TEXT)
    assert "--golden" in caught.value.remedy
    example = tmp_path / "serving_input_example.json"
    example.write_text('{"dataframe_split": {"columns": ["text"], "data": [["a"], ["b"]]}}')
    assert list(logged_example(tmp_path, TEXT).table.rows) == [("a",), ("b",)]
    example.write_text('{"messages": []}')
    with pytest.raises(WrongUsage, match="example"):
        logged_example(tmp_path, TEXT)


def test_params_of_the_example_without_defaults_are_sent(tmp_path: Path) -> None:
    params = [{"name": "k", "type": "long", "default": 5}, {"name": "p", "type": "double", "default": 0.5}]
    signature = Signature(TEXT.inputs, None, Signature.parse({"params": json.dumps(params)}).params)
    body = {"inputs": {"text": ["a"]}, "params": {"k": 5, "p": 0.25}}
    (tmp_path / "serving_input_example.json").write_text(json.dumps(body))
    golden = logged_example(tmp_path, signature)
    assert golden.params == {"p": 0.25}
    assert json.loads(golden.body(0, 1))["params"] == {"p": 0.25}


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        (None, {"inputs": {"a": [[1.0, 2.0]], "b": [1, 2, 3]}}),  # arrays by name, which are not rows
        (None, {"inputs": "text"}),
        ([{"name": "messages", "type": "array", "items": {"type": "any"}}], {"messages": [{"role": "user"}]}),
        (
            [{"name": 0, "type": "double"}, {"name": 1, "type": "double"}],  # of a frame that was made of an array
            {"dataframe_split": {"columns": [0, 1], "data": [[1.0, 2.0]]}},
        ),
    ],
)
def test_example_that_is_not_a_table_of_named_columns_is_sent_as_it_is(
    tmp_path: Path, inputs: list[dict[str, object]] | None, body: dict[str, object]
) -> None:
    signature = Signature.parse(None if inputs is None else {"inputs": json.dumps(inputs)})
    (tmp_path / "serving_input_example.json").write_text(json.dumps(body))
    golden = logged_example(tmp_path, signature)
    assert json.loads(golden.body(0, len(golden))) == body
