"""Golden sets: read with their types, divided into requests, and predicted through functions that take requests."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise import api
from likewise.core.errors import DeployFailed, InputInvalid, RowRefused, WrongUsage
from likewise.core.items import Item, Request, Row, Table
from likewise.core.signature import Signature
from likewise.parity.backends.requests import Post, body, predict_by_requests
from likewise.parity.backends.scored import like
from likewise.parity.batches import ROWS, Batch, batches
from likewise.parity.check import check_bound
from likewise.parity.compare import RefusedRow
from likewise.parity.comparison import Comparison
from likewise.parity.golden import Golden, Unfit, content, golden_set, logged_example, scored_rows
from likewise.parity.verify_options import VerifyOptions
from likewise.targets.base import Response
from likewise.wire import decode

KINDS = ("string", "long", "double", "boolean", "datetime", "binary")
NOWHERE = Path("nowhere")


def signature(*kinds: str, params: Sequence[dict[str, object]] = ()) -> Signature:
    inputs = [
        {"name": kind if kinds[0] != "text" else "text", "type": kind.replace("text", "string")} for kind in kinds
    ]
    return Signature.parse({"inputs": json.dumps(inputs), **({"params": json.dumps(params)} if params else {})})


ALL, TEXT = signature(*KINDS), signature("text")
TOP_K = signature("text", params=[{"name": "k", "type": "long", "default": 5}])


def read(path: Path | str, takes: Signature = TEXT, seed: int = 0, **options: Any) -> Golden:
    return golden_set(VerifyOptions(golden=str(path), **options), NOWHERE, takes, seed=seed)


def values(golden: Golden) -> list[tuple[object, ...]]:
    """The rows that fit the model."""
    return [item.values for item in golden.items if isinstance(item, Row)]


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["g.csv", "g.jsonl"])
def test_golden_file_is_read_like_job_input(tmp_path: Path, name: str) -> None:
    lines = {
        "g.csv": "id,text\n1,a\n2,\n",
        "g.jsonl": '{"id": 1, "text": "a"}\n{"id": 2, "text": ""}\n',
    }
    (tmp_path / name).write_text(lines[name])
    assert values(read(tmp_path / name)) == [("a",), ("",)]


def test_golden_columns_can_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("review\na\n")
    assert values(read(tmp_path / "g.csv", column={"review": "text"})) == [("a",)]


def test_golden_rows_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    path.write_text("5\nb\n")
    assert values(read(path, header="absent")) == [("5",), ("b",)]
    with pytest.raises(InputInvalid, match="the first line seems to be a row"):
        read(path)
    with pytest.raises(WrongUsage, match="header"):
        VerifyOptions(header="no")


def test_invalid_golden_sets_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text('{"text": 5}\n{"text": 7}\n')
    with pytest.raises(RowRefused, match="row 1"):
        read(path)
    path.write_text("\n")
    with pytest.raises(InputInvalid, match="no rows"):
        read(path)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sample": 5, "bound": 1.0}, "both"),
        ({"bound": 0.0}, "--bound"),
        ({"confidence": 100.0}, "--confidence"),
        ({"allow": -1.0}, "--allow"),
    ],
)
def test_wrong_options_are_rejected(options: dict[str, Any], text: str) -> None:
    with pytest.raises(WrongUsage, match=text):
        VerifyOptions(**options)


def test_row_that_does_not_fit_is_compared_too(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text('{"id": 1, "text": "a"}\n{"id": 2, "text": 7}\nnot JSON\n{"id": 4, "text": "d"}\n')
    golden = read(path)
    unfit = golden.items[1]
    assert isinstance(unfit, Unfit)
    assert (unfit.record, unfit.error.code, content(unfit)) == ({"text": 7}, "ROW_REFUSED", {"text": 7})
    assert [golden.number(index) for index in range(3)] == [0, 1, 3]
    assert (golden.left_out, "line 3 is not JSON" in golden.why) == (1, True)
    sent = [json.loads(body(batch, {}, tensors=False)) for batch in batches(golden.items, row_wise=True)]
    assert {"dataframe_split": {"columns": ["text"], "data": [[7]]}} in sent
    assert sum(len(each["dataframe_split"]["data"]) for each in sent) == 3


def test_sample_is_random_and_repeatable(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {row}"}) + "\n" for row in range(5000)))
    one, again, other = (read(path, seed=seed, sample=4000) for seed in (1, 1, 2))
    assert values(one) == values(again) != values(other)
    assert {len(each) for each in (one, other)} == {4000}
    assert all(f"row {golden.number(i)}" == v for golden in (one, other) for i, (v,) in enumerate(values(golden)))
    assert len(read(path, sample=9000, seed=3)) == 5000
    assert VerifyOptions(bound=0.1).wanted == 2995


def test_rows_that_cannot_prove_the_bound_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    path.write_text("text,expected\n" + "".join(f"text {n},{'x' if n < 59 else ''}\n" for n in range(100)))
    golden = read(path)
    assert golden.omitted == ["41 of 100 rows have no expected prediction"]
    check_bound(golden, VerifyOptions(bound=5.0))
    with pytest.raises(InputInvalid, match=r"has 100 rows, of which 59 have an .* takes 299") as caught:
        check_bound(golden, VerifyOptions(bound=1.0))
    assert caught.value.remedy == "add rows, or use --bound 4.96"
    check_bound(golden, VerifyOptions(bound=4.96))


def test_a_sample_has_no_preference(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text("".join(json.dumps({"text": str(row)}) + "\n" for row in range(10)))
    counts = [0] * 10
    for seed in range(400):
        for (value,) in values(read(path, seed=seed, sample=3)):
            counts[int(str(value))] += 1
    assert all(80 < count < 160 for count in counts)  # 120 expected, with a standard deviation of 9


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_expected_answers_and_params_are_no_input(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"g.{form}"
    rows = [{"text": "a", "expected": "A", "params": '{"k": 3}'}, {"text": "b", "expected": None, "params": None}]
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    golden = read(path, TOP_K)
    assert values(golden) == [("a",), ("b",)]
    assert [item.params for item in golden.items] == [{"k": 3}, None]
    assert {row: value or None for row, value in golden.expected.items()} in ({0: "A"}, {0: "A", 1: None})
    assert any(golden.params)
    assert golden.file is not None
    written = golden.file.write(tmp_path, [1, 0])
    again = read(written, TOP_K)
    assert values(again) == [("b",), ("a",)]
    assert again.params == [None]
    assert not again.expected


def test_params_that_are_no_object_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    path.write_text("text,params\na,5\n")
    with pytest.raises(InputInvalid, match="row 1: params"):
        read(path, TOP_K)


def test_columns_of_a_model_without_a_signature_are_all_input_unless_named(tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    path.write_text("a,expected\n1,2.5\n3,x\n")
    unsigned = Signature()
    assert values(read(path, unsigned)) == [(1, "2.5"), (3, "x")]
    named = read(path, unsigned, expected="expected")
    assert (values(named), named.expected) == ([(1,), (3,)], {0: "2.5", 1: "x"})
    with pytest.raises(InputInvalid, match="no column `answer`"):
        read(path, unsigned, expected="answer")


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    path = tmp_path / "g.parquet"
    kinds = pa.schema(
        [("a", pa.int8()), ("b", pa.float32()), ("c", pa.timestamp("ns", "UTC")), ("d", pa.list_(pa.int16()))]
    )
    rows = [{"a": n, "b": n / 2, "c": n * 1_000_000_001, "d": [n]} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(rows, schema=kinds), path)
    golden = read(path, Signature())
    assert all(item.arrow for item in golden.items if isinstance(item, Row))
    assert golden.file is not None
    again = golden.file.write(tmp_path / "..", [4, 2, 0])
    table = pq.read_table(again)
    assert table.schema.equals(kinds)
    assert table["a"].to_pylist() == [4, 2, 0]
    again.unlink()


def test_documents_of_a_chat_model_are_requests(tmp_path: Path) -> None:
    chat = Signature.parse({"inputs": json.dumps([{"name": "messages", "type": "array", "items": {"type": "any"}}])})
    path = tmp_path / "g.jsonl"
    documents = [{"messages": [{"role": "user", "content": text}]} for text in ("a", "b")]
    path.write_text("".join(json.dumps({**each, "expected": {"content": "x"}}) + "\n" for each in documents))
    (tmp_path / "MLmodel").write_text("metadata: {task: agent/v1/chat}")
    golden = golden_set(VerifyOptions(golden=str(path)), tmp_path, chat)
    made = batches(golden.items, row_wise=False)
    assert [json.loads(body(batch, {}, tensors=False)) for batch in made] == documents
    assert all(batch.whole for batch in made)
    assert golden.expected == {0: {"content": "x"}, 1: {"content": "x"}}
    assert golden.file is not None
    assert golden.file.write(tmp_path, [1]).read_text() == json.dumps(documents[1]) + "\n"


def test_scored_file_is_matched_by_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    lines = [{"text": t, "predictions": p} for t, p in (("b", 2), ("a", 1), ("c", 3), ("a", 9))]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    (tmp_path / "g.csv").write_text("text\na\nb\nx\na\n")
    assert scored_rows(str(path), NOWHERE, TEXT, read(tmp_path / "g.csv")) == ({0: 1, 1: 2, 3: 9}, "jsonl")
    own = golden_set(VerifyOptions(), NOWHERE, TEXT, str(path))
    assert scored_rows(str(path), NOWHERE, TEXT, own) == ({0: 2, 1: 1, 2: 3, 3: 9}, "jsonl")
    for seed in range(20):  # a sample has the predictions of exactly its rows
        sample = golden_set(VerifyOptions(sample=2), NOWHERE, TEXT, str(path), seed)
        found, _ = scored_rows(str(path), NOWHERE, TEXT, sample)
        assert [found[at] for at in (0, 1)] == [lines[sample.number(at)]["predictions"] for at in (0, 1)]
    path.write_text('{"text": 7, "predictions": 5}\n{"text": "a", "predictions": 1}\n')
    unfit = golden_set(VerifyOptions(), NOWHERE, TEXT, str(path))  # which the job's model took
    assert isinstance(unfit.items[0], Unfit)
    assert scored_rows(str(path), NOWHERE, TEXT, unfit)[0] == {0: 5, 1: 1}
    with pytest.raises(InputInvalid, match="predictions"):
        scored_rows(str(tmp_path / "g.csv"), NOWHERE, TEXT, own)


@pytest.mark.parametrize(
    ("form", "value", "ours", "meant"),
    [
        ("csv", "0.5", 0.25, 0.5),
        ("csv", "0.5", "0.25", "0.5"),
        ("csv", "", 1.0, None),
        ("csv", "", None, None),
        ("csv", "", "a", ""),
        ("csv", "NaN", 1.0, None),
        ("csv", "Infinity", None, None),
        ("csv", "True", False, True),
        ("csv", '["a"]', ["b"], ["a"]),
        ("csv", "text", 1.0, "text"),
        ("jsonl", "1", 1, "1"),
        ("jsonl", {"a": 1, "b": None}, {"a": 1}, {"a": 1, "b": None}),
        ("parquet", "1", 1, 1),
        ("parquet", {"a": 1, "b": None}, {"a": 1}, {"a": 1}),
        ("parquet", {"a": 1, "b": None}, {"a": 1, "b": None}, {"a": 1, "b": None}),
        ("parquet", [{"a": None, "b": 2}], [{"b": 2}], [{"b": 2}]),
        ("parquet", b"\x00", "AA==", "AA=="),
        ("parquet", datetime(2026, 1, 2), "2026-01-02T00:00:00", "2026-01-02T00:00:00"),
    ],
)
def test_value_of_a_file_is_read_as_a_response_has_it(form: str, value: object, ours: object, meant: object) -> None:
    assert like(value, ours, form) == meant


def test_expected_answers_of_a_model_without_names_of_columns(tmp_path: Path) -> None:
    hinted = Signature.parse({"inputs": json.dumps([{"type": "string"}]), "from_type_hints": True})
    (tmp_path / "g.csv").write_text("input,expected\na,A\nb,\n")
    golden = read(tmp_path / "g.csv", hinted)
    assert (values(golden), golden.expected, golden.format) == ([("a",), ("b",)], {0: "A"}, "csv")
    mapped = read(tmp_path / "g.csv", column={"expected": "text"})
    assert (values(mapped), mapped.expected) == ([("A",), ("",)], {})


def test_file_for_a_job_has_the_same_values(tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    path.write_text('text\n"a\rb"\n"c, ""d"""\n""\n', newline="")
    golden = read(path)
    assert golden.file is not None
    assert values(read(golden.file.write(tmp_path / "..", [2, 1, 0]))) == values(golden)[::-1]
    path.write_text("x,y\n1,1.5\n2,2\n03,x\n")  # a job would infer other types from some of the rows
    unsigned = read(path, Signature(), sample=2, seed=1)
    assert unsigned.file is not None
    assert values(read(unsigned.file.write(tmp_path, [1, 0]), Signature())) == values(unsigned)[::-1]


def test_parquet_folder_may_have_columns_in_another_order(tmp_path: Path) -> None:
    kinds = [
        pa.schema([("text", pa.string()), ("n", pa.int64())]),
        pa.schema([("n", pa.int64()), ("text", pa.string())]),
    ]
    for number, schema in enumerate(kinds):
        pq.write_table(
            pa.Table.from_pylist([{"text": f"{number}", "n": number}], schema=schema), tmp_path / f"{number}.parquet"
        )
    golden = read(tmp_path)
    assert golden.file is not None
    assert pq.read_table(golden.file.write(tmp_path, [1, 0]))["text"].to_pylist() == ["1", "0"]


# --- the model's example ---------------------------------------------------------------------------------------------


def test_logged_input_example_is_used(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="without an input example") as caught:
        logged_example(tmp_path, TEXT)
    assert "--golden" in caught.value.remedy
    example = tmp_path / "serving_input_example.json"
    example.write_text('{"dataframe_split": {"columns": ["text"], "data": [["a"], ["b"]]}}')
    golden = logged_example(tmp_path, TEXT)
    assert values(golden) == [("a",), ("b",)]
    assert golden.file is not None
    assert golden.file.write(tmp_path, [1]).read_text() == '{"text": "b"}\n'
    with pytest.raises(WrongUsage, match="sample"):
        golden_set(VerifyOptions(sample=1), tmp_path, TEXT)
    example.write_text('{"messages": []}')
    with pytest.raises(WrongUsage, match="example"):
        logged_example(tmp_path, TEXT)


def test_params_of_the_example_are_sent_unless_they_are_the_defaults(tmp_path: Path) -> None:
    for sent, params in (({"k": 5}, None), ({"k": 6}, {"k": 6})):
        example = {"inputs": {"text": ["a"]}, "params": sent}
        (tmp_path / "serving_input_example.json").write_text(json.dumps(example))
        [batch] = batches(logged_example(tmp_path, TOP_K).items, row_wise=True)
        assert json.loads(body(batch, {}, tensors=False)).get("params") == params


@pytest.mark.parametrize(
    ("inputs", "document"),
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
    tmp_path: Path, inputs: list[dict[str, object]] | None, document: dict[str, object]
) -> None:
    takes = Signature.parse(None if inputs is None else {"inputs": json.dumps(inputs)})
    (tmp_path / "serving_input_example.json").write_text(json.dumps(document))
    service = Service(predict=lambda _: [1])
    predictions(logged_example(tmp_path, takes), service, row_wise=False, takes=takes)
    assert service.bodies == [document]


# --- requests --------------------------------------------------------------------------------------------------------


def texts(count: int) -> Golden:
    return Golden("made up", [Row(("text",), (f"row {row}",)) for row in range(count)])


@dataclass
class Service:
    """A model that returns texts in capitals and refuses requests with the row `bad`."""

    bad: str = ""
    predict: Callable[[list[str]], object] = lambda rows: [row.upper() for row in rows]

    def __post_init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    @property
    def sizes(self) -> list[int]:
        return [len(each["dataframe_split"]["data"]) for each in self.bodies]

    def __call__(self, sent: bytes) -> Response:
        self.bodies.append(json.loads(sent))
        rows = [row[0] for row in self.bodies[-1].get("dataframe_split", {"data": []})["data"]]
        if self.bad in rows:
            status = 500 if len(rows) == 1 else 422
            return Response(status, "application/json", b'{"error_code": "ROW_REFUSED", "message": "no"}')
        return Response(200, "application/json", json.dumps({"predictions": self.predict(rows)}).encode())


def predictions(golden: Golden, post: Post, *, row_wise: bool, takes: Signature = TEXT, seed: int = 0) -> Comparison:
    bundle = cast("api.Bundle", SimpleNamespace(signature=takes, manifest=SimpleNamespace(row_wise=row_wise)))
    comparison = Comparison(golden, (), bundle, "", random.Random(seed), lambda _: None)
    predict_by_requests(comparison, post, "there")
    return comparison


def test_independent_rows_are_sent_in_random_order_and_sizes() -> None:
    orders = set()
    for seed in range(3):
        service = Service()
        comparison = predictions(texts(300), service, row_wise=True, seed=seed)
        assert comparison.answers == {row: f"ROW {row}" for row in range(300)}
        assert sum(service.sizes) == 300
        assert len(set(service.sizes)) > 3
        assert max(service.sizes) <= ROWS
        assert len(comparison.latencies) == len(service.sizes)
        orders.add(json.dumps(service.bodies))
    assert len(orders) == 3


def test_refused_row_does_not_affect_other_rows() -> None:
    answers = predictions(texts(130), Service(bad="row 70"), row_wise=True).answers
    assert answers.pop(70) == RefusedRow("ROW_REFUSED")
    assert answers == {row: f"ROW {row}" for row in range(130) if row != 70}


def test_service_that_answers_too_few_rows_or_refuses_several_is_not_excused() -> None:
    few = predictions(texts(300), Service(predict=lambda rows: [row.upper() for row in rows[:8]]), row_wise=True)
    assert sum(few.answers[row] != f"ROW {row}" for row in range(300)) > 250

    def one_by_one(sent: bytes) -> Response:
        rows = json.loads(sent)["dataframe_split"]["data"]
        if len(rows) > 1:
            return Response(500, "application/json", b'{"error_code": "INTERNAL", "message": "no"}')
        return Response(200, "application/json", json.dumps({"predictions": [rows[0][0].upper()]}).encode())

    refused = predictions(texts(300), one_by_one, row_wise=True).answers.values()
    assert sum(isinstance(each, RefusedRow) for each in refused) > 250


def test_request_that_is_too_large_is_divided() -> None:
    def small(sent: bytes) -> Response:
        rows = json.loads(sent)["dataframe_split"]["data"]
        if len(rows) > 3:
            return Response(413, "application/json", b'{"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "large"}')
        return Response(200, "application/json", json.dumps({"predictions": [r[0].upper() for r in rows]}).encode())

    assert predictions(texts(99), small, row_wise=True).answers == {row: f"ROW {row}" for row in range(99)}


def test_dependent_rows_are_divided_like_those_of_a_job() -> None:
    rows: list[Item | Unfit] = [*texts(130).items]
    rows[5] = Unfit({"text": 5}, RowRefused("no", remedy=""))
    made = batches(rows, row_wise=False)
    assert sorted(len(batch) for batch in made) == [1, 2, 63, 64]


def test_dependent_rows_are_always_sent_together() -> None:
    sent = []
    for seed in (1, 2):
        service = Service(predict=len)
        answers = predictions(texts(130), service, row_wise=False, seed=seed).answers
        assert answers == {row: 2 if row >= 128 else ROWS for row in range(130)}
        sent.append(sorted(json.dumps(each) for each in service.bodies))
    assert sent[0] == sent[1]


def test_rows_with_other_params_or_columns_are_sent_apart() -> None:
    rows: list[Item] = [
        Row(("text", "x") if row % 2 else ("text",), (f"{row}", 1)[: 1 + row % 2], {"k": row % 3}) for row in range(60)
    ]
    made = batches(rows, True, random.Random(1))
    assert sorted(index for batch in made for index in batch.indices) == list(range(60))
    for batch in made:
        assert {(index % 2, index % 3) for index in batch.indices} == {
            (len(batch.request.table.columns or ()) - 1, (batch.request.params or {})["k"])
        }


def test_object_of_a_list_per_output_is_divided_by_rows() -> None:
    service = Service(predict=lambda rows: {"label": rows, "score": [[len(row), 0] for row in rows]})
    answers = predictions(texts(3), service, row_wise=True).answers
    assert answers == {row: {"label": f"row {row}", "score": [5, 0]} for row in range(3)}


def test_nan_of_a_model_without_a_signature_is_sent_as_nan() -> None:
    items = [Row(("x", "y"), (math.nan, "a"))]
    [batch] = batches(items, row_wise=True)
    sent = body(batch, {}, tensors=False)
    assert b"NaN" in sent
    [row] = decode(sent, None, Signature()).table.rows
    assert repr(row) == "(nan, 'a')"


def test_nan_is_read_as_null() -> None:
    service = Service(predict=lambda rows: [float("nan")] * len(rows))
    assert predictions(texts(2), service, row_wise=True).answers == {0: None, 1: None}


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
        predictions(texts(2), lambda _: response, row_wise=True)


VALUES = st.tuples(
    st.text(st.characters(codec="utf-8")),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    st.binary(),
)


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_request_preserves_the_rows(rows: list[tuple[object, ...]]) -> None:
    batch = Batch(range(len(rows)), Request(Table(KINDS, rows)))
    assert list(decode(body(batch, {}, tensors=False), None, ALL).table.rows) == rows
    [first, *_] = batch.single()
    assert list(replace(first.request.table).rows) == rows[:1]
