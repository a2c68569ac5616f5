"""Predictions in Parquet have native types: declared by the signature, or inferred from all answers of the job."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.batch.scoring import TEXT, names, quarantined, read, run_job, texts, write

from likewise.batch import JobReport, sinks
from likewise.batch.formats.parquet import ParquetWriter
from likewise.batch.formats.prediction_types import all_merged, kind_of, merged
from likewise.batch.values import as_cell
from likewise.core.errors import Interrupted, OutputRefused
from likewise.core.isolation import StopSignal
from likewise.core.items import Row
from likewise.core.signature import Signature
from likewise.core.tagged_json import decode, encode

OPEN = Signature(TEXT.inputs)
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 6)
ZONED = MOMENT.replace(tzinfo=timezone(timedelta(hours=2)))


def job(tmp_path: Path, answers: Sequence[object], signature: Signature = OPEN, window: int = 2) -> JobReport:
    """Score one row per answer into `out.parquet`."""
    source = write(tmp_path / "in.csv", texts(str(n) for n in range(len(answers))))
    output = tmp_path / "out.parquet"
    return run_job(source, output, answer(answers), signature=signature, window=window, restart=output.exists())


def answer(answers: Sequence[object]) -> Any:
    return lambda row: answers[int(row.get("text"))]


def written(tmp_path: Path) -> pa.ChunkedArray:
    return pq.read_table(tmp_path / "out.parquet")["predictions"]


INFERRED: dict[str, tuple[list[object], str, list[object]]] = {
    "integers": ([1, -2, None, 2**63 - 1], "int64", [1, -2, None, 2**63 - 1]),
    "integers and numbers": ([1, 2, 3, 0.5, 2**53], "double", [1.0, 2.0, 3.0, 0.5, 2.0**53]),
    "inexact integers": ([2**53 + 1, 2, 0.5], "string", ["9007199254740993", "2", "0.5"]),
    "huge integers": ([2**63, 1], "string", ["9223372036854775808", "1"]),
    "booleans": ([True, None, False], "bool", [True, None, False]),
    "booleans and integers": ([True, 1, 0], "string", ["true", "1", "0"]),
    "texts": (["a", None, "ß"], "string", ["a", None, "ß"]),
    "nothing": ([None, None], "string", [None, None]),
    "bytes": ([b"\xff", b""], "binary", [b"\xff", b""]),
    "moments": ([MOMENT, None], "timestamp[us]", [MOMENT, None]),
    "zoned moments": ([ZONED], "timestamp[us, tz=UTC]", [ZONED.astimezone(UTC)]),
    "both moments": ([ZONED, MOMENT], "string", [ZONED.isoformat(), MOMENT.isoformat()]),
    "dates": ([date(2026, 1, 2)], "date32[day]", [date(2026, 1, 2)]),
    "lists": ([[0.5, 1.0], [], [None], None], "list<element: double>", [[0.5, 1.0], [], [None], None]),
    "lists of integers, later numbers": ([[1], [2], [0.5]], "list<element: double>", [[1.0], [2.0], [0.5]]),
    "matrices": ([[[1, 2], [3, 4]]], "list<element: list<element: int64>>", [[[1, 2], [3, 4]]]),
    "empty lists": ([[], []], "list<element: string>", [[], []]),
    "lists of several types": ([["a", 0.5], ["b", 1]], "string", ['["a", 0.5]', '["b", 1]']),
    "records": (
        [{"label": "a", "score": 0.5}, {"label": "b", "score": 1}],
        "struct<label: string, score: double>",
        [{"label": "a", "score": 0.5}, {"label": "b", "score": 1.0}],
    ),
    "records with a late member": (
        [{"a": 1, "b": [1]}, {"b": [2], "a": 2}, {"a": 3, "b": [], "c": True}],
        "struct<a: int64, b: list<element: int64>, c: bool>",
        [{"a": 1, "b": [1], "c": None}, {"a": 2, "b": [2], "c": None}, {"a": 3, "b": [], "c": True}],
    ),
    "records of several types": (
        [{"a": 1, "b": 2}, {"a": "x", "b": 2}],
        "string",
        ['{"a": 1, "b": 2}', '{"a": "x", "b": 2}'],
    ),
    "empty records": ([{}, {}], "string", ["{}", "{}"]),
    "records and numbers": ([{"a": 1, "b": 2}, 7], "string", ['{"a": 1, "b": 2}', "7"]),
}


@pytest.mark.parametrize(("answers", "kind", "expected"), INFERRED.values(), ids=INFERRED)
def test_undeclared_predictions_have_the_type_of_all_answers(
    tmp_path: Path, answers: list[object], kind: str, expected: list[object]
) -> None:
    report = job(tmp_path, answers)
    column = written(tmp_path)
    assert (str(column.type), column.to_pylist()) == (kind, expected)
    assert report.prediction_type == kind
    assert json.loads((tmp_path / "out.parquet.likewise.json").read_text())["prediction_type"] == kind
    assert report.rows_quarantined == 0


def outputs(*specs: dict[str, object]) -> Signature:
    return Signature.parse({"inputs": [{"name": "text", "type": "string"}], "outputs": list(specs)})


def tensor(dtype: str, *shape: int, **more: object) -> dict[str, object]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}, **more}


DOUBLES = {"type": "array", "items": {"type": "double"}}
LONGS = {"type": "array", "items": {"type": "long"}}
FLOATS = {"type": "array", "items": {"type": "float"}}
LABELLED = {"type": "object", "properties": {"label": {"type": "string"}, "scores": FLOATS}}
AS_LABELLED = "struct<label: string, scores: list<element: float>>"
DECLARED: dict[str, tuple[Signature, list[object], str, list[object]]] = {
    "array": (outputs(DOUBLES), [[1, 0.5], [True], "x", None], "list<element: double>", [[1.0, 0.5], None]),
    "array of longs": (outputs(LONGS), [[1], [1.5], [2**63]], "list<element: int64>", [[1]]),
    "object": (
        outputs(LABELLED),
        [{"label": "a", "scores": [1]}, {"label": "b"}, {"x": 1}],
        AS_LABELLED,
        [{"label": "a", "scores": [1.0]}, {"label": "b", "scores": None}],
    ),
    "map": (
        outputs({"type": "map", "values": {"type": "long"}}),
        [{"a": 1}, {}, {"a": "x"}],
        "map<string, int64>",
        [[("a", 1)], []],
    ),
    "vector": (outputs(tensor("float32", -1)), [0.5, 2, 1e300, [0.5]], "float", [0.5, 2.0]),
    "matrix": (outputs(tensor("int8", -1, 2)), [[1, 2], [3, 300]], "list<element: int8>", [[1, 2]]),
    "text tensor": (outputs(tensor("str", -1)), ["a"], "string", ["a"]),
    "objects in a tensor": (
        outputs(tensor("object", -1)),
        ["a", {"a": 1, "b": 2}],
        "string",
        ["a", '{"a": 1, "b": 2}'],
    ),
    "named tensors": (
        outputs(tensor("int64", -1, name="l"), tensor("float64", -1, 2, name="p")),
        [{"l": 1, "p": [0.5, 1]}],
        "struct<l: int64, p: list<element: double>>",
        [{"l": 1, "p": [0.5, 1.0]}],
    ),
    "any": (outputs({"type": "any"}), [1, 2], "int64", [1, 2]),
    "unnamed columns": (outputs({"type": "long"}, {"type": "long"}), [[1, 2]], "list<element: int64>", [[1, 2]]),
    "scalar in a list": (outputs({"type": "double"}), [[0.5], 1.5], "double", [0.5, 1.5]),
    "scalar in a record": (outputs({"type": "double"}), [{"0": 0.5}, {"mean": 1.5}], "double", [0.5, 1.5]),
    "object in a record": (outputs(LABELLED), [{"0": {"label": "a"}}], AS_LABELLED, [{"label": "a", "scores": None}]),
}


@pytest.mark.parametrize(("signature", "answers", "kind", "expected"), DECLARED.values(), ids=DECLARED)
def test_declared_predictions_have_their_type_or_are_quarantined(
    tmp_path: Path, signature: Signature, answers: list[object], kind: str, expected: list[object]
) -> None:
    report = job(tmp_path, answers, signature)
    column = written(tmp_path)
    found = str(column.type).replace(" ('predictions')", "")  # pyarrow's name for the entries of a map
    assert (found, column.to_pylist(), report.prediction_type) == (kind, expected, kind)
    assert report.rows_quarantined == len(answers) - len(expected) == len(quarantined(tmp_path / "out.parquet"))


LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
)
MOMENTS = st.datetimes(timezones=st.none() | st.just(UTC)).map(lambda moment: moment.replace(fold=0)) | st.dates()
ANSWERS = st.recursive(
    LEAVES | MOMENTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=1), inner),
    max_leaves=6,
)


@given(st.lists(ANSWERS, min_size=1, max_size=5), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_no_answer_is_changed(tmp_path_factory: pytest.TempPathFactory, answers: list[object], window: int) -> None:
    tmp_path = tmp_path_factory.mktemp("job")
    report = job(tmp_path, answers, window=window)
    column = written(tmp_path)
    answers = [next(iter(a.values())) if isinstance(a, dict) and len(a) == 1 else a for a in answers]
    assert report.rows_quarantined == 0
    for value, found in zip(answers, column.to_pylist(), strict=True):
        assert same(value, found) or found == as_cell(value)
    if all_merged(map(kind_of, answers)) == "mixed":
        assert column.type == pa.string()


def same(value: object, found: object) -> bool:
    """Whether Parquet's value is the answer; a member that a record lacks is null."""
    if isinstance(value, dict) and isinstance(found, dict):
        return all(same(value.get(name), member) for name, member in found.items()) and value.keys() <= found.keys()
    if isinstance(value, list) and isinstance(found, list):
        return len(value) == len(found) and all(map(same, value, found))
    if isinstance(value, float) and math.isnan(value):
        return isinstance(found, float) and math.isnan(found)
    return value == found and isinstance(value, bool) == isinstance(found, bool)


@given(ANSWERS)
def test_an_answer_is_stored_exactly(value: object) -> None:
    assert repr(decode(encode(value))) == repr(value)


@given(st.lists(ANSWERS, max_size=4).flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))))
def test_the_order_of_answers_does_not_matter(both: tuple[list[object], list[object]]) -> None:
    first, second = (all_merged(map(kind_of, some)) for some in both)
    assert first == second
    assert merged(first, second) == first
    assert json.loads(json.dumps(first)) == first


def test_all_parts_of_a_folder_have_one_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "PART_BYTES", 1000)
    source = write(tmp_path / "in.csv", texts(str(n) for n in range(60)))
    report = run_job(source, tmp_path / "out", answer([*range(59), 0.5]), signature=OPEN, window=5, format="parquet")
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert len(parts) > 2
    assert {str(pq.read_schema(part).field("predictions").type) for part in parts} == {"double"}
    assert [row["predictions"] for part in parts for row in read(part)] == [*map(float, range(59)), 0.5]
    assert report.prediction_type == "double"


@pytest.mark.parametrize("output", ["out", "out.parquet"])
@pytest.mark.parametrize("stops", [[3], [22, 40], [55]])
def test_an_interrupted_job_infers_the_same_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, stops: list[int]
) -> None:
    monkeypatch.setattr(sinks, "PART_BYTES", 1000)
    answers = [*[[n] for n in range(30)], *[[n / 2] for n in range(30)]]
    source = write(tmp_path / "in.csv", texts(str(n) for n in range(60)))

    def run(stop: int | None, name: str) -> JobReport:
        def predict(row: Row) -> object:
            if int(str(row.get("text"))) == stop:
                raise StopSignal
            return answers[int(str(row.get("text")))]

        return run_job(source, tmp_path / name, predict, signature=OPEN, window=5, format="parquet")

    whole = run(None, f"whole-{output}")
    for stop in stops:
        with pytest.raises(Interrupted):
            run(stop, output)
    report = run(None, output)
    assert report.prediction_type == whole.prediction_type == "list<element: double>"
    assert parts(tmp_path / output) == parts(tmp_path / f"whole-{output}")


def parts(output: Path) -> list[bytes]:
    paths = sorted(output.glob("part-*")) if output.is_dir() else [output]
    return [path.read_bytes() for path in paths]


@pytest.mark.parametrize("failing", [0, 1, 2, 3])
def test_a_job_that_stops_while_it_writes_its_parts_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    monkeypatch.setattr(sinks, "PART_BYTES", 1000)
    source = write(tmp_path / "in.csv", texts(str(n) for n in range(60)))
    answers = [*range(59), 0.5]
    options: dict[str, Any] = {"signature": OPEN, "window": 5, "format": "parquet"}
    run_job(source, tmp_path / "whole", answer(answers), **options)
    sealed: list[BinaryIO] = []

    def fail(writer: ParquetWriter, pieces: BinaryIO, stream: BinaryIO) -> None:
        if len(sealed) == failing:
            raise OSError(28, "x")
        sealed.append(stream)
        seal(writer, pieces, stream)

    seal = ParquetWriter.seal
    monkeypatch.setattr(ParquetWriter, "seal", fail)
    with pytest.raises(OutputRefused, match="60 rows are done"):
        run_job(source, tmp_path / "out", answer(answers), **options)
    monkeypatch.setattr(ParquetWriter, "seal", seal)
    run_job(source, tmp_path / "out", lambda _: pytest.fail("scored again"), **options)
    assert parts(tmp_path / "out") == parts(tmp_path / "whole")
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_an_output_without_rows_has_a_type(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n")
    report = run_job(tmp_path / "in.csv", tmp_path / "out.parquet", signature=OPEN)
    assert (report.prediction_type, str(written(tmp_path).type)) == ("string", "string")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("value", [object(), [{1, 2}], {"a": 1j}, "\ud800"])
def test_a_value_that_cannot_be_written_is_the_rows_error(tmp_path: Path, suffix: str, value: object) -> None:
    source = write(tmp_path / "in.csv", texts("01"))
    report = run_job(source, tmp_path / f"out.{suffix}", answer(["fine", value]), signature=OPEN)
    assert (report.rows_ok, report.rows_quarantined) == (1, 1)
    assert "the prediction" in quarantined(tmp_path / f"out.{suffix}")[0]["cause"]
