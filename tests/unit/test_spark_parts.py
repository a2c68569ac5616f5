"""The Spark target without Spark's JVM: types, windows, chunk files, the environment, missing requirements."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql.types import DayTimeIntervalType
from tests.support.batch.scoring import TEXT, FunctionEngine, upper, write
from tests.support.other_user import give_away, needs_root

from likewise.batch import ScoreOptions
from likewise.batch.formats import Chunk, load
from likewise.batch.formats.parquet import records_of
from likewise.batch.job import ScoreJob
from likewise.batch.layout import Layout
from likewise.core import unpack
from likewise.core.errors import InputInvalid, MissingExtra, OutputRefused, RowRefused, WrongUsage
from likewise.core.items import Row
from likewise.core.results import Failed, Ok
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.shipping.environment import cached_archive, closure, environment
from likewise.targets.spark import blob, bootstrap
from likewise.targets.spark.chunks import decode, encode
from likewise.targets.spark.plan import ChunkFile, Staging
from likewise.targets.spark.predictions import arrow_array, values_and_errors
from likewise.targets.spark.publish import assemble
from likewise.targets.spark.result_type import arrow_type, declared_ddl
from likewise.targets.spark.runner import _Run
from likewise.targets.spark.session import require_java
from likewise.targets.spark.shipping import PREINSTALLED
from likewise.targets.spark.windows import WINDOW_ROWS, InputColumns, items_of, row_maker, windows
from likewise.targets.spark.worker import score_windows

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
    array = arrow_array([Ok(value)], kind, "raise")
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
    with pytest.raises(RowRefused, match="does not fit"):
        arrow_array([Ok(value)], kind, "raise")
    assert arrow_array([Ok(value), Ok(None)], kind, "null").to_pylist() == [None, None]
    values, errors = values_and_errors([Ok(value), Ok(None), Failed(RowRefused("no", remedy="yes"))], kind)
    assert values == [None, None, None]
    assert [error and error["code"] for error in errors] == ["ROW_REFUSED", None, "ROW_REFUSED"]


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (None, "string"),
        ([{"type": "string", "name": "text"}], "string"),
        ([{"type": "long"}], "bigint"),
        ([{"type": "string", "name": "a"}, {"type": "double", "name": "b c"}], "struct<`a`: string, `b c`: double>"),
        ([{"type": "array", "items": {"type": "float"}}], "array<float>"),
        ([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}], "array<array<float>>"),
        ([{"type": "map", "values": {"type": "boolean"}}], "map<string, boolean>"),
    ],
)
def test_default_type_comes_from_the_signature(outputs: Any, expected: str) -> None:
    assert declared_ddl(Signature.parse({"outputs": outputs}).outputs) == expected


def test_tensors_without_a_spark_type_are_rejected() -> None:
    outputs = Signature.parse(
        {"outputs": [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2, 2]}}]}
    )
    with pytest.raises(WrongUsage, match="returns tensors"):
        declared_ddl(outputs.outputs)


def test_unsupported_prediction_type_is_rejected() -> None:
    with pytest.raises(WrongUsage, match="cannot be of type interval"):
        arrow_type(DayTimeIntervalType())


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
    maker = row_maker(["text"], Signature(), {})
    assert [type(item) for item in items_of([batch], maker, {"k": 1})] == [Row, Failed, Row]


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


def test_staging_resumes_only_the_same_job(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    assert not staging.resume({"bundle": "a", "input": {"f": "1"}}, False)
    parts = [{"part": 1, "folder": "y", "rows": [5]}, {"part": 0, "folder": "x", "rows": [10, 3]}]
    staging.keep_snapshot(parts, numbered_on=True)
    assert staging.resume({"bundle": "a", "input": {"f": "1"}}, False)
    assert staging.snapshot() == [
        ChunkFile("x/000000", 10, 0),
        ChunkFile("x/000001", 3, 0),
        ChunkFile("y/000000", 5, 13),
    ]
    with pytest.raises(OutputRefused, match="different one: f has changed since"):
        staging.resume({"bundle": "a", "input": {"f": "2"}}, False)
    assert not staging.resume({"bundle": "a", "input": {"f": "2"}}, True)
    assert staging.snapshot() is None
    assert staging.replaces


def test_partial_results_of_another_runner_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text("{}\n")
    with pytest.raises(OutputRefused, match="another runner"):
        Staging(tmp_path).resume({}, False)


def test_driver_follows_no_links_in_staging(tmp_path: Path) -> None:
    staging, chunk = Staging(tmp_path / "staging"), ChunkFile("x/000000", 1, 0)
    (staging.scored / "x").mkdir(parents=True)
    blob.write(tmp_path / "victim", {"rows": 1}, b"forged", b"")
    (staging.scored / chunk.name).symlink_to(tmp_path / "victim")
    staging.quarantine.symlink_to(tmp_path / "victim")
    before = (tmp_path / "victim").read_bytes()
    assert staging.result(chunk) is None
    source = InputColumns(("text",), "in.csv")
    with pytest.raises(OSError, match="symbolic links"):
        assemble(staging, [chunk], source, Signature(), Layout.of(tmp_path / "out"), "jsonl")
    staging.quarantine.unlink()
    with pytest.raises(OSError, match="symbolic links"):
        assemble(staging, [chunk], source, Signature(), Layout.of(tmp_path / "out"), "jsonl")
    assert (tmp_path / "victim").read_bytes() == before


def test_predictions_of_all_chunks_have_one_type(tmp_path: Path) -> None:
    """An executor infers the type of its chunk; the driver knows all of them before it writes the first part."""
    staging = Staging(tmp_path / "staging")
    source = InputColumns(("text",), "in.csv", types=pa.schema([("text", pa.string())]))
    chunks = []
    for number, answers in enumerate([[[1], [2]], [[0.5], None]]):
        writer = load("parquet").open_writer(source, None)
        chunk = Chunk("in.csv", 1, [{"text": "a"}, {"text": "b"}], {}, None, None, 0)
        rows = io.BytesIO()
        writer.write(rows, chunk, [0, 1], [result.value for result in writer.fit(answers)])
        counts = {"rows": 2, "ok": 2, "kind": writer.open_kind}
        (staging.scored / "x").mkdir(parents=True, exist_ok=True)
        blob.write(staging.scored / f"x/{number:06d}", counts, rows.getvalue(), b"")
        chunks.append(ChunkFile(f"x/{number:06d}", 2, 0))
    parts, _ = assemble(staging, chunks, source, Signature(), Layout.of(tmp_path / "out"), "parquet")
    predictions = pq.read_table(staging.output / parts.name(0))["predictions"]
    assert parts.prediction_type == str(predictions.type) == "list<element: double>"
    assert predictions.to_pylist() == [[1.0], [2.0], [0.5], None]


@needs_root
def test_job_on_spark_does_not_read_the_staging_folder_of_another_user(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": "a"}])
    staging = tmp_path / ".out.likewise-staging"
    staging.mkdir()
    os.mkfifo(staging / "spark.json")  # reading it would not end
    give_away(staging)
    engine = FunctionEngine(upper)
    for restart in (False, True):
        options = ScoreOptions(restart=restart)
        job = ScoreJob(engine, "sha256:b", TEXT, str(source), tmp_path / "out", options, lambda _: None)
        with pytest.raises(OutputRefused, match="belongs to another user"):
            _Run(job, ModelSpec("sha256:b"), None)
    assert [path.name for path in staging.iterdir()] == ["spark.json"]


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
    lines = [line for module in (bootstrap, unpack) for line in Path(module.__file__).read_text().splitlines()]
    imported = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert {name for name in imported if name.startswith("likewise")} == {"likewise.core.unpack"}


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
