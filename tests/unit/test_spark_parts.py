"""The Spark target without Spark's JVM: types, windows, chunk files, the environment, missing requirements."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tarfile
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql.types import DayTimeIntervalType
from tests.support.batch.scoring import TEXT, FunctionEngine, upper, write
from tests.support.other_user import give_away, needs_root

from likewise.batch import ScoreOptions
from likewise.batch.distributed import blob
from likewise.batch.distributed.chunks import decode, encode
from likewise.batch.distributed.local_times import local_batch
from likewise.batch.distributed.run import run
from likewise.batch.formats import Chunk
from likewise.batch.job import ScoreJob
from likewise.batch.sources import open_files
from likewise.core import cores, unpack
from likewise.core.arrow import records_of, schema_bytes
from likewise.core.errors import InputInvalid, MissingExtra, ModelFailed, OutputRefused, RowRefused, WrongUsage
from likewise.core.items import Row
from likewise.core.results import Failed, Ok
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.shipping.environment import cached_archive, closure, environment
from likewise.targets.spark import bootstrap
from likewise.targets.spark.answers import answers
from likewise.targets.spark.columns import named_batch
from likewise.targets.spark.predictions import ResultType, arrow_array, time_zone, values_and_errors
from likewise.targets.spark.result_type import declared_ddl, result_type_of
from likewise.targets.spark.session import require_java
from likewise.targets.spark.shipping import PREINSTALLED
from likewise.targets.spark.udf_arguments import checked_env, engine_for_config, read_model_config
from likewise.targets.spark.windows import WINDOW_ROWS, items_of, row_maker, windows
from likewise.targets.spark.worker import Loading, environment_of, score_windows


class Point(NamedTuple):
    x: int
    y: float


RECORD = {"label": "good", "score": 0.5, "count": 3}


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (RECORD, pa.string(), "good"),
        (RECORD, pa.float64(), 0.5),
        (RECORD, pa.int32(), 3),
        (RECORD, pa.list_(pa.float64()), [0.5, 3.0]),
        (RECORD, pa.list_(pa.string()), ["good", "0.5", "3"]),
        (RECORD, pa.struct([("count", pa.int64()), ("label", pa.string())]), {"count": 3, "label": "good"}),
        (True, pa.string(), "True"),
        ({"a": [1, 2]}, pa.string(), "[1, 2]"),
        (None, pa.string(), None),
        ([1, 2], pa.list_(pa.int64()), [1, 2]),
        ([[1], [2]], pa.list_(pa.list_(pa.int64())), [[1], [2]]),
        ({"a": 1}, pa.map_(pa.string(), pa.int64()), [("a", 1)]),
    ],
)
def test_predictions_are_converted_to_the_requested_type(value: object, kind: pa.DataType, expected: object) -> None:
    array = arrow_array([Ok(value)], ResultType(kind), "raise")
    assert array.type == kind
    assert array.to_pylist() == [expected]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (2**31, pa.int32()),
        ("3", pa.int64()),
        (True, pa.int64()),
        (1.5, pa.int64()),
        ("x", pa.float64()),
        (1, pa.bool_()),
        ({"a": "x"}, pa.list_(pa.float64())),
        ({"a": 1}, pa.struct([("b", pa.int64())])),
        ("\ud800", pa.string()),
    ],
)
def test_a_prediction_that_does_not_fit_the_type_fails_only_its_row(value: object, kind: pa.DataType) -> None:
    result = ResultType(kind)
    with pytest.raises(RowRefused, match="does not fit"):
        arrow_array([Ok(value)], result, "raise")
    assert arrow_array([Ok(value), Ok(None)], result, "null").to_pylist() == [None, None]
    values, errors = values_and_errors([Ok(value), Ok(None), Failed(RowRefused("no", remedy="yes"))], result)
    assert values == [None, None, None]
    assert [error and error["code"] for error in errors] == ["ROW_REFUSED", None, "ROW_REFUSED"]


def converted(predictions: object, kind: pa.DataType, rows: int = 2, *, prints: bool = True) -> list[object]:
    results = [Ok(answer) for answer in answers(predictions, rows)]
    values: list[object] = arrow_array(results, ResultType(kind, prints=prints), "raise").to_pylist()
    return values


WIDE_AND_NARROW = pd.DataFrame({"a": [2**40, 1], "b": np.array([3, 4], "int32"), "c": [0.5, None]})
OBJECTS = pd.DataFrame({"id": pd.Series([1, 2], dtype=object), "score": [0.5, 0.25]})
PAIR = pa.struct([("a", pa.int32()), ("b", pa.string())])


@pytest.mark.parametrize(
    ("predictions", "kind", "expected"),
    [
        (WIDE_AND_NARROW, pa.int32(), [3, 4]),  # not `a`, although its second value would fit
        (WIDE_AND_NARROW, pa.int64(), [2**40, 1]),
        (WIDE_AND_NARROW, pa.list_(pa.int32()), [[3], [4]]),
        (WIDE_AND_NARROW, pa.list_(pa.float64()), [[2.0**40, 3.0, 0.5], [1.0, 4.0, None]]),
        (OBJECTS, pa.float64(), [0.5, 0.25]),  # objects are not numbers, as for `spark_udf`
        ([{"a": None, "b": 2.0}, {"a": 1.0, "b": 3.0}], pa.float64(), [None, 1.0]),  # one column for both rows
        ([{"a": None, "b": 2.0}, {"a": "x", "b": 3.0}], pa.float64(), [2.0, 3.0]),
        ([{"a": None}, {"a": 2**60 + 1}], pa.struct([("a", pa.int64())]), [{"a": None}, {"a": 2**60 + 1}]),
        ({"a": [1.5, 2.5], "b": [1, 2]}, pa.list_(pa.float64()), [[1.5, 1.0], [2.5, 2.0]]),
        ({"out": np.array([[1.5, 1], [2.5, 2]])}, pa.list_(pa.float64()), [[1.5, 1.0], [2.5, 2.0]]),
        (np.array([[1, 2], [3, 4]]), pa.list_(pa.int32()), [[1, 2], [3, 4]]),
        (np.arange(8).reshape(2, 2, 2), pa.list_(pa.list_(pa.int64())), [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]),
        ([np.array([[1.5]]), [[2]]], pa.list_(pa.list_(pa.float64())), [[[1.5]], [[2.0]]]),
        (pd.DataFrame({"a": [np.array([1.0, np.nan]), np.nan]}), pa.list_(pa.float64()), [[1.0, None], None]),
        (
            [[(1, "x")], [(2, "y"), (3, None)]],
            pa.list_(PAIR),
            [[{"a": 1, "b": "x"}], [{"a": 2, "b": "y"}, {"a": 3, "b": None}]],
        ),
        ([{"k": 1}, {"z": 2.0}], pa.map_(pa.string(), pa.int32()), [[("k", 1)], [("z", 2)]]),
        ([Decimal("1.50"), 2], pa.string(), ["1.50", "2"]),
        ([Decimal("1.50"), 2], pa.decimal128(10, 2), [Decimal("1.50"), Decimal("2.00")]),
        ([None, float("nan")], pa.string(), [None, "nan"]),
        ([[1, None], ["a", 2.5]], pa.list_(pa.string()), [["1", None], ["a", "2.5"]]),
        ([np.array([1.0, np.nan]), None], pa.list_(pa.float64()), [[1.0, None], None]),
        ([{"a": [1, 2]}, {"a": np.array([1, 2])}], pa.string(), ["[1, 2]", "[1 2]"]),
        ([b"ab", b""], pa.binary(), [b"ab", b""]),
        ([date(2024, 1, 2), None], pa.date32(), [date(2024, 1, 2), None]),
        (pd.Series(pd.array([1, None], "Int64")), pa.int64(), [1, None]),
        (np.array([1, 2], "uint64"), pa.int64(), [1, 2]),
        ([Point(1, 2.5), Point(3, 4.5)], pa.struct([("y", pa.float64())]), [{"y": 2.5}, {"y": 4.5}]),
        (np.array([0.1, 0.2], "float32"), pa.float64(), [0.10000000149011612, 0.20000000298023224]),
        (np.array([True, False]), pa.bool_(), [True, False]),
    ],
)
def test_answers_are_converted_by_the_types_of_their_columns(
    predictions: object, kind: pa.DataType, expected: list[object]
) -> None:
    assert converted(predictions, kind) == expected


@pytest.mark.parametrize(
    ("predictions", "kind"),
    [
        ([{"a": 2**40}, {"a": 1}], pa.struct([("a", pa.int32())])),
        ([{"a": 1.5}, {"a": 1}], pa.struct([("a", pa.int32())])),
        ([{"a": "no"}, {"a": "yes"}], pa.struct([("a", pa.bool_())])),
        ([[[1.5]], [[1]]], pa.list_(pa.list_(pa.int32()))),
        (np.array([2**53 + 1, 1]), pa.float64()),
        ([16777217, 1], pa.float32()),
        ([1e300, 1.0], pa.float32()),
        ([1, 2], pa.bool_()),
        (OBJECTS[["id"]], pa.int64()),
        (["3", "4"], pa.int64()),
        ([Decimal("1.005"), 1], pa.decimal128(10, 2)),
        ([(1, 2, 3), (4, 5, 6)], PAIR),
        (pd.Series(pd.to_datetime(["2024-01-01 00:00:00.000000001"] * 2)), pa.timestamp("us", "UTC")),
    ],
)
def test_answers_that_would_be_changed_are_refused(predictions: object, kind: pa.DataType) -> None:
    with pytest.raises(RowRefused, match="does not fit"):
        converted(predictions, kind)


@pytest.mark.parametrize("zone", ["America/New_York", "-04:00"])
def test_naive_times_are_in_the_sessions_zone(zone: str) -> None:
    summer = pd.Series(pd.to_datetime(["2024-07-01 08:00", None]))
    result = ResultType(pa.timestamp("us", "UTC"), zone)
    values = arrow_array([Ok(answer) for answer in answers(summer, 2)], result, "raise").to_pylist()
    assert values == [datetime(2024, 7, 1, 12, tzinfo=UTC), None]


def test_unknown_time_zone_is_rejected() -> None:
    with pytest.raises(WrongUsage, match="Mars/Base"):
        time_zone("Mars/Base")


def test_frames_have_json_where_the_udf_prints() -> None:
    nested = [{"a": {"k": None}}, None]
    assert converted(nested, pa.string(), prints=False) == ['{"k": null}', None]
    assert converted(nested, pa.string()) == ["{'k': None}", None]


@pytest.mark.parametrize("predictions", [[1], {"a": [1]}, pd.Series([1]), np.array([[1]]), 1, "ab"])
def test_another_number_of_predictions_than_rows_is_an_error(predictions: object) -> None:
    with pytest.raises(ModelFailed, match="returned"):
        answers(predictions, 2)


def test_single_row_may_have_a_scalar_prediction() -> None:
    assert converted(1, pa.int64(), rows=1) == [1]


ZONED = pa.timestamp("us", "Europe/Berlin")
MOMENT = datetime(2024, 7, 1, 12, tzinfo=UTC)
LOCAL = datetime(2024, 7, 1, 14)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (ZONED, [MOMENT, None], [LOCAL, None]),
        (pa.list_(ZONED), [[MOMENT, None], None, []], [[LOCAL, None], None, []]),
        (pa.struct([("a", ZONED), ("b", pa.int8())]), [{"a": MOMENT, "b": 1}, None], [{"a": LOCAL, "b": 1}, None]),
        (pa.map_(pa.string(), ZONED), [[("k", MOMENT)], None], [[("k", LOCAL)], None]),
        (pa.list_(pa.struct([("a", pa.list_(ZONED))])), [None, [{"a": [MOMENT]}]], [None, [{"a": [LOCAL]}]]),
        (pa.timestamp("us"), [LOCAL], [LOCAL]),
    ],
)
def test_times_reach_the_model_in_the_sessions_zone(kind: pa.DataType, values: list[Any], expected: list[Any]) -> None:
    batch = pa.record_batch([pa.array(values, kind)], names=["t"])
    for start in range(len(values) + 1):
        local = local_batch(batch.slice(start))
        local.validate(full=True)
        assert local.column("t").to_pylist() == expected[start:]
    in_utc = pa.record_batch([pa.array([MOMENT], pa.timestamp("us", "UTC"))], names=["t"])
    assert local_batch(in_utc, "Europe/Berlin").column("t").to_pylist() == [LOCAL]


def signature_of(*inputs: dict[str, object]) -> Signature:
    return Signature.parse({"inputs": [*inputs]})


def column_batch(signature: Signature, *columns: list[Any]) -> tuple[list[str], list[list[Any]]]:
    batch = named_batch(tuple(map(pa.array, columns)), signature)
    return batch.schema.names, [column.to_pylist() for column in batch.columns]


def test_arguments_are_columns_of_the_signature() -> None:
    long = {"type": "long", "required": True}
    signature = signature_of({**long, "name": "a"}, {**long, "name": "b", "required": False})
    assert column_batch(signature, [1], [2], [3]) == (["a", "b"], [[1], [2]])
    assert column_batch(signature, [1]) == (["a"], [[1]])
    assert column_batch(signature, [{"b": 2, "a": 1, "c": 3}]) == (["b", "a", "c"], [[2], [1], [3]])
    assert column_batch(Signature(), [1], [2]) == (["0", "1"], [[1], [2]])
    unnamed = signature_of(long, long)
    assert column_batch(unnamed, [1], [2], [3]) == (["0", "1"], [[1], [2]])
    batch = pa.record_batch([pa.array([1]), pa.array([2])], names=["x", "y"])
    assert items_of([batch], row_maker(batch.schema, unnamed, {})) == [
        Row(("x", "y"), (1, 2), arrow=schema_bytes(batch.schema))
    ]
    with pytest.raises(InputInvalid, match="takes 2 columns"):
        row_maker(batch.select(["x"]).schema, unnamed, {})
    with pytest.raises(InputInvalid, match="needs 2 columns"):
        column_batch(signature_of({**long, "name": "a"}, {**long, "name": "b"}), [1])


def tensor(*shape: int) -> dict[str, object]:
    return {"type": "tensor", "name": "x", "tensor-spec": {"dtype": "float64", "shape": list(shape)}}


def test_flat_arrays_are_reshaped_to_the_tensors_shape() -> None:
    numbers = list(range(12))
    rows = [numbers, numbers[::-1]]
    assert column_batch(signature_of(tensor(-1, 12)), rows) == (["x"], [rows])
    for shape in [(-1, 3, 4), (-1, 2, 3, 2), (-1, -1, 4)]:
        expected = [np.array(row).reshape(shape[1:]).tolist() for row in rows]
        assert column_batch(signature_of(tensor(*shape)), rows) == (["x"], [expected])
    assert column_batch(signature_of(tensor(-1, 1)), [1.5, 2.5]) == (["x"], [[[1.5], [2.5]]])
    for bad in ([numbers, None], [numbers[1:]], [[*numbers, *numbers]]):
        with pytest.raises(InputInvalid, match="does not have the shape"):
            column_batch(signature_of(tensor(-1, 3, 4)), bad)


def test_types_that_only_spark_knows_are_refused_with_their_conversion() -> None:
    variant = pa.struct(
        [pa.field("value", pa.binary()), pa.field("metadata", pa.binary(), metadata={"variant": "true"})]
    )
    vector = pa.struct(
        [
            ("type", pa.int8()),
            ("size", pa.int32()),
            ("indices", pa.list_(pa.int32())),
            ("values", pa.list_(pa.float64())),
        ]
    )
    schema = pa.schema([("a", variant), ("b", vector), ("c", pa.int64())])
    with pytest.raises(InputInvalid, match="`a` contains variants"):
        row_maker(schema, Signature(), {})
    with pytest.raises(InputInvalid, match="`b` contains vectors"):
        row_maker(schema, signature_of({"type": "double", "name": "x"}), {"b": "x"})
    row_maker(schema, signature_of({"type": "long", "name": "c"}), {})  # the model does not use the others


def test_extra_env_must_be_text() -> None:
    assert checked_env({"B": "2", "A": "1"}) == (("A", "1"), ("B", "2"))
    for wrong in ({"A": 1}, {"A=B": "1"}, {"": "1"}, {"A": "\0"}):
        with pytest.raises(WrongUsage, match="extra_env cannot set"):
            checked_env(wrong)  # type: ignore[arg-type]


def test_model_config_is_a_mapping_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("alpha: 0.5\n")
    (tmp_path / "c.json").write_text('{\t"alpha": 0.5}')
    for given_config in ({"alpha": 0.5}, tmp_path / "c.yaml", str(tmp_path / "c.json")):
        assert read_model_config(given_config) == {"alpha": 0.5}
    assert read_model_config(None) is None
    (tmp_path / "list.yaml").write_text("[1]")
    (tmp_path / "bad.yaml").write_text("a: [")
    for name in ("list.yaml", "bad.yaml", "none.yaml"):
        with pytest.raises(WrongUsage, match="model_config file"):
            read_model_config(tmp_path / name)
    assert engine_for_config({"alpha": 1}, None, None) == ("pyfunc", None)
    assert engine_for_config({}, "openvino", "bf16") == ("openvino", "bf16")
    with pytest.raises(WrongUsage, match="does not run the model's own code"):
        engine_for_config({"alpha": 1}, "openvino", None)


def test_workers_share_an_engine_only_with_the_same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIKEWISE_TEST_SET", "before")
    monkeypatch.delenv("LIKEWISE_TEST_UNSET", raising=False)
    loading = Loading((("LIKEWISE_TEST_SET", "new"), ("LIKEWISE_TEST_UNSET", "new")))
    with environment_of(loading):
        assert (os.environ["LIKEWISE_TEST_SET"], os.environ["LIKEWISE_TEST_UNSET"]) == ("new", "new")
    assert (os.environ["LIKEWISE_TEST_SET"], os.environ.get("LIKEWISE_TEST_UNSET")) == ("before", None)
    assert loading != Loading()


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (None, "string"),
        ([{"type": "string", "name": "text"}], "string"),
        ([{"type": "long"}], "bigint"),
        ([{"type": "string", "name": "a"}, {"type": "double", "name": "b c"}], "struct<`a`: string, `b c`: double>"),
        ([{"type": "array", "items": {"type": "float"}}], "array<float>"),
        ([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1]}}], "array<float>"),
        ([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}], "array<float>"),
        ([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [2, 3]}}], "array<array<float>>"),
        ([{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1, 2, 2]}}], "array<array<bigint>>"),
        ([{"type": "any"}], "variant"),
        ([{"type": "map", "values": {"type": "boolean"}}], "map<string, boolean>"),
    ],
)
def test_default_type_comes_from_the_signature(outputs: Any, expected: str) -> None:
    assert declared_ddl(Signature.parse({"outputs": outputs}).outputs, "string") == expected


def test_tensors_without_a_spark_type_are_rejected() -> None:
    outputs = Signature.parse(
        {"outputs": [{"type": "tensor", "tensor-spec": {"dtype": "complex64", "shape": [-1, 2]}}]}
    )
    with pytest.raises(WrongUsage, match="returns tensors"):
        declared_ddl(outputs.outputs, "double")


def test_unsupported_prediction_type_is_rejected() -> None:
    with pytest.raises(WrongUsage, match="cannot be of type interval"):
        result_type_of(DayTimeIntervalType(), "UTC", prints=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3 * WINDOW_ROWS), max_size=6))
def test_windows_contain_every_row_once_in_order_and_are_bounded(sizes: list[int]) -> None:
    numbers = iter(range(sum(sizes)))
    batches = [
        pa.RecordBatch.from_pydict({"n": pa.array([next(numbers) for _ in range(size)], "int64")}) for size in sizes
    ]
    result = list(windows(iter(batches)))
    assert [n for window in result for piece in window for n in piece.column(0).to_pylist()] == list(range(sum(sizes)))
    counts = [sum(piece.num_rows for piece in window) for window in result]
    assert all(count < 2 * WINDOW_ROWS for count in counts)
    assert all(count >= WINDOW_ROWS for count in counts[:-1])


def test_large_texts_result_in_small_windows() -> None:
    batch = pa.RecordBatch.from_pydict({"text": ["x" * (1 << 20)] * 40})
    counts = [sum(piece.num_rows for piece in window) for window in windows(iter([batch]))]
    assert sum(counts) == 40
    assert max(counts) <= 16


def test_text_that_is_not_utf8_fails_only_its_row() -> None:
    texts = pa.array([b"good", b"bad \xff", b"fine"], pa.binary()).view(pa.string())
    batch = pa.RecordBatch.from_arrays([texts], names=["text"])
    records, faults = records_of(batch)
    assert records == [{"text": "good"}, {"text": "bad \udcff"}, {"text": "fine"}]
    assert {index: type(fault) for index, fault in faults.items()} == {1: RowRefused}
    first, failed, last = items_of([batch], row_maker(batch.schema, Signature(), {}, {"k": 1}))
    assert isinstance(failed, Failed)
    assert (first, last) == tuple(Row(("text",), (text,), {"k": 1}, first.arrow) for text in ("good", "fine"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=5), max_size=5), st.booleans())
def test_each_window_gets_its_own_results(given_windows: list[list[str]], overlaps: bool) -> None:
    engine = FunctionEngine(upper, overlaps=overlaps)
    tagged = ((number, [Row(("text",), (text,)) for text in texts]) for number, texts in enumerate(given_windows))
    for (number, results), texts in zip(score_windows(engine, tagged), given_windows, strict=True):
        assert given_windows[number] is texts
        assert [result.value for result in results if isinstance(result, Ok)] == [
            {"text": f"<{text}>".upper()} for text in texts
        ]


texts = st.text(st.characters(exclude_categories=[]), max_size=8)  # lone surrogates included


@given(st.lists(texts, min_size=1, max_size=8), st.sets(st.integers(0, 7)), st.booleans())
def test_chunk_round_trip(values: list[str], bad: set[int], native: bool) -> None:
    records = [{"a": value, "b": "x"} for value in values]
    faults = {index: InputInvalid(values[index], remedy="fix") for index in bad if index < len(values)}
    lines = [json.dumps(record) for record in records] if native else None
    chunk = Chunk("in é.csv", 7, records, faults, list(range(len(values))), lines, 99)
    back = decode(*serialized(chunk))
    assert (back.file, back.first, back.lines, back.native, back.offset) == (
        chunk.file,
        chunk.first,
        chunk.lines,
        chunk.native,
        chunk.offset,
    )
    assert list(back.records) == records
    assert {i: (type(e), e.cause) for i, e in back.faults.items()} == {i: (type(e), e.cause) for i, e in faults.items()}


def test_chunk_round_trip_keeps_arrow_types() -> None:
    text = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    batch = pa.record_batch({"n": pa.array([1, 2, 3], "int16"), "text": text})
    fault = RowRefused("no", remedy="yes")
    chunk = Chunk(
        "f", 1, [{"n": 1, "text": "a"}, {"n": 2, "text": "\udcff"}, {"n": 3, "text": "c"}], {1: fault}, None, batch, 0
    )
    back = decode(*serialized(chunk))
    assert list(back.records) == chunk.records
    assert back.native.schema == batch.schema
    assert back.native.column(1).view(pa.binary()).to_pylist() == [b"a", b"\xff", b"c"]


def serialized(chunk: Chunk) -> tuple[dict[str, Any], bytes, bytes]:
    header, body, arrow = encode(chunk)
    return json.loads(json.dumps(header)), body, arrow


def test_truncated_or_corrupt_blob_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    assert blob.header(path) is None
    blob.write(path, {"rows": 2}, b"one", b"", b"three")
    assert blob.read(path)[1] == [b"one", b"", b"three"]
    complete = path.read_bytes()
    path.write_bytes(complete[:-1])
    assert blob.header(path) is None
    path.write_bytes(complete[:-1] + b"E")
    with pytest.raises(OSError, match="the file is corrupt"):
        blob.read(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["blob"]


@needs_root
def test_job_on_spark_does_not_read_the_staging_folder_of_another_user(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": "a"}])
    staging = tmp_path / ".out.likewise-staging"
    staging.mkdir()
    os.mkfifo(staging / "journal.jsonl")  # reading it would not end
    give_away(staging)
    engine = FunctionEngine(upper)
    for restart in (False, True):
        options = ScoreOptions(restart=restart)
        model = ModelSpec("sha256:b")
        job = ScoreJob(engine, "sha256:b", TEXT, str(source), tmp_path / "out", options, lambda _: None, model)
        with pytest.raises(OutputRefused, match="belongs to another user"):
            run(job, partial(open_files, job), pytest.fail)
    assert [path.name for path in staging.iterdir()] == ["journal.jsonl"]


def test_packed_environment_is_complete_and_self_contained(tmp_path: Path) -> None:
    packed = environment(["likewise"], PREINSTALLED)
    path = packed.archive(tmp_path)
    assert environment(["likewise"], PREINSTALLED).archive(tmp_path) == path
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "env", filter="data")
    first = f"import sys; sys.path[:0] = [{str(tmp_path / 'env')!r}]"
    code = f"{first}; import likewise.core.items, orjson; print(orjson.__file__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith(str(tmp_path / "env")), done.stderr
    assert not {"pyspark", "pyarrow", "torch"} & packed.versions.keys()


def test_missing_distribution_cannot_be_shipped() -> None:
    with pytest.raises(MissingExtra, match="no-such-package"):
        closure(["no-such-package"], frozenset())


def test_different_python_on_the_executor_is_reported(tmp_path: Path) -> None:
    shipment = {**unpack.local_runtime(), "python": "cpython 3.8"}
    with pytest.raises(RuntimeError, match=r"for cpython 3\.8, and this executor runs cpython 3\."):
        bootstrap.install_shipment(shipment)


def test_archive_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyspark

    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("content")
    with tarfile.open(tmp_path / "x.archive", "w:gz") as archive:
        archive.add(tmp_path / "file", "file")
    monkeypatch.setattr(pyspark.SparkFiles, "get", lambda name: str(tmp_path / name))
    folder = bootstrap.unpacked("x.archive", "key")
    assert (Path(folder) / "file").read_text() == "content"
    (tmp_path / "x.archive").unlink()
    assert bootstrap.unpacked("x.archive", "key") == folder


@pytest.mark.parametrize(
    ("version", "supported"), [("21.0.1", True), ("17.0.9", True), ("11.0.2", False), ("1.8.0_392", False)]
)
def test_java_must_be_installed_and_recent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, supported: bool
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if supported:
        require_java()
    else:
        with pytest.raises(MissingExtra, match="Spark needs Java 17"):
            require_java()


def test_missing_java_is_reported_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="none on the PATH") as caught:
        require_java()
    assert "install a Java runtime" in caught.value.remedy


def test_bootstrap_imports_no_other_likewise_module(tmp_path: Path) -> None:
    lines = [line for module in (bootstrap, cores, unpack) for line in Path(module.__file__).read_text().splitlines()]
    imported = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert {name for name in imported if name.startswith("likewise")} == {"likewise.core.cores", "likewise.core.unpack"}


def test_unused_archives_are_deleted_and_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def cached(name: str) -> Path:
        return cached_archive(tmp_path / name, lambda stage: stage.write_text(name))

    old, used, partial = cached("old.archive"), cached("used.archive"), tmp_path / "cut.archive.abc"
    partial.write_text("left by a process that was killed")
    for path in (old, used, partial):
        os.utime(path, (0, 0))
    cached("used.archive")
    cached("new.archive")
    assert {path.name for path in tmp_path.iterdir()} == {"used.archive", "new.archive"}
    with pytest.raises(ZeroDivisionError):
        cached_archive(tmp_path / "broken.archive", lambda stage: 1 // 0)
    assert not list(tmp_path.glob("broken*"))
