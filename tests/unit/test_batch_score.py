"""The output of a job: rows, predictions, counts, progress."""

from __future__ import annotations

import json
import math
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.batch.in_process import InProcess, run_on
from tests.support.batch.scoring import TEXT, UNSIGNED, FunctionEngine, names, quarantined, read, run_job, texts, write

from likewise.batch import Progress
from likewise.core.items import Row
from likewise.core.signature import Signature
from likewise.engine.load import LazyEngine

SUFFIXES = ["csv", "jsonl", "parquet"]
NUMBER = Signature.parse({"outputs": [{"type": "double"}]})


@pytest.mark.parametrize("out", SUFFIXES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_stay_in_order_with_their_predictions(tmp_path: Path, suffix: str, out: str) -> None:
    rows = [{"id": f"{n:05d}", "text": f"row {n} " + "x" * (n * 7 % 50)} for n in range(500)]
    source = write(tmp_path / f"in.{suffix}", rows)
    report = run_job(source, tmp_path / f"out.{out}", window=64)
    assert read(tmp_path / f"out.{out}") == [{**row, "predictions": f"<{row['text']}>".upper()} for row in rows]
    assert (report.rows_in, report.rows_ok, report.rows_quarantined, report.duplicates) == (500, 500, 0, 0)
    assert names(tmp_path) == {
        f"in.{suffix}",
        f"out.{out}",
        f"out.{out}.likewise.json",
        f"out.{out}.quarantine.parquet",
    }


def test_folder_contains_parts_manifest_and_quarantine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likewise.batch.sinks.PART_BYTES", 2000)
    source = write(tmp_path / "in.csv", texts(f"text {n}" for n in range(300)))
    report = run_job(source, tmp_path / "out", window=50)
    parts = sorted((tmp_path / "out").glob("part-*.csv"))
    assert len(parts) > 1
    assert [row["text"] for part in parts for row in read(part)] == [f"text {n}" for n in range(300)]
    assert names(tmp_path / "out") == {*(p.name for p in parts), "_likewise.json", "_quarantine.parquet"}
    manifest = json.loads((tmp_path / "out/_likewise.json").read_text())
    assert manifest == json.loads(json.dumps(report.as_dict()))
    assert set(manifest) == {
        "bundle", "rows_in", "rows_ok", "rows_quarantined", "duplicates", "engine", "seconds", "tokens", "build",
        "input_types", "prediction_type", "reasons", "quarantine",
    }  # fmt: skip
    assert manifest["engine"] == "test/fp32"
    assert (manifest["bundle"], manifest["build"]) == ("sha256:b", "sha256:c")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_input_without_rows_gives_output_without_rows(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), source)
    else:
        source.write_text("text\n" if suffix == "csv" else "")
    report = run_job(source, tmp_path / "out")
    assert report.rows_in == report.tokens == 0
    assert read(tmp_path / f"out/part-00000.{suffix}") == []


def test_csv_types_are_not_inferred(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(b'\xef\xbb\xbfzip,text,when,n\r\n00123,"",2020-01-01,NA\r\n\r\n1e5,007,"a ""b""\nc",null\r\n')
    run_job(source, tmp_path / "out.jsonl", predict=lambda row: {"text": repr(row.get("text"))})
    assert read(tmp_path / "out.jsonl") == [
        {"zip": "00123", "text": "", "when": "2020-01-01", "n": "NA", "predictions": "''"},
        {"zip": "1e5", "text": "007", "when": 'a "b"\nc', "n": "null", "predictions": "'007'"},
    ]


def test_csv_is_cast_to_the_signature(tmp_path: Path) -> None:
    kinds = {"s": "string", "n": "long", "x": "double", "b": "boolean", "t": "datetime", "o": "array"}
    signature = Signature.parse({"inputs": [{"name": name, "type": kind} for name, kind in kinds.items()]})
    seen: list[Row] = []
    rows = [
        {"s": "05", "n": "05", "x": "1e3", "b": "True", "t": "2020-01-02T03:04:05", "o": "[1, 2]"},
        {"s": "", "n": "1.5", "x": "", "b": "no", "t": "", "o": ""},
    ]
    source = write(tmp_path / "in.csv", rows)
    report = run_job(source, tmp_path / "out.csv", predict=lambda row: seen.append(row) or 1, signature=signature)
    assert seen == [Row(tuple(kinds), ("05", 5, 1000.0, True, datetime(2020, 1, 2, 3, 4, 5), [1, 2]))]
    assert report.rows_quarantined == 1
    assert quarantined(tmp_path / "out.csv")[0]["cause"] == (
        f"row 2, column `n`: expected a whole number from {-(2**63)} to {2**63 - 1}, got '1.5'"
    )


def test_json_lines_are_copied_unchanged(tmp_path: Path) -> None:
    lines = [
        '{"text":"a","big":123456789012345678901234567890,"x":1.10,"n":{"k":[1,null]}}',
        '  {"x": 1E400, "text" : "\\u00e9", "x": 2 }  ',
    ]
    (tmp_path / "in.ndjson").write_text("\ufeff" + "\n\n".join(lines))
    run_job(tmp_path / "in.ndjson", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines() == [
        lines[0][:-1] + ', "predictions": "<A>"}',
        '{"x": 1E400, "text" : "\\u00e9", "x": 2, "predictions": "<É>"}',
    ]


def test_json_lines_get_one_type_per_column_in_parquet(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "i": 1, "f": 1, "m": "x", "big": 1 << 70, "nest": {"k": 1}},
        {"text": "b", "i": 2, "f": 2.5, "m": 3, "late": True},
    ]
    run_job(write(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet", window=1)
    first, second = read(tmp_path / "out.parquet")
    assert first == {
        **rows[0], "f": 1.0, "big": str(1 << 70), "nest": '{"k": 1}', "late": None, "predictions": "<A>",
    }  # fmt: skip
    assert (second["i"], second["f"], second["m"], second["late"], second["nest"]) == (2, 2.5, "3", True, None)


def test_parquet_types_are_copied_unchanged(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", "b", None, "d"]).dictionary_encode(),
            "when": pa.array([1, 2, 3, None], pa.timestamp("ns", "UTC")),
            "price": pa.array(["1.10", None, "3", "4"]).cast(pa.decimal128(9, 2)),
            "blob": pa.array([b"\xff", b"", None, b"x"]),
            "list": [[{"k": 1}], [], None, [{"k": 2}]],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
    run_job(tmp_path / "in.parquet", tmp_path / "out.parquet", window=2)
    result = pq.read_table(tmp_path / "out.parquet")
    assert result.drop_columns("predictions").equals(table.take([0, 1, 3]))
    assert result["predictions"].to_pylist() == ["<A>", "<B>", "<D>"]


@pytest.mark.parametrize(
    ("prediction", "outputs", "cell", "native"),
    [
        ({"text": "t"}, [{"name": "text", "type": "string"}], "t", "t"),
        ({"text": "t"}, None, "t", "t"),
        ("plain", None, "plain", "plain"),
        (1.5, None, "1.5", 1.5),
        (2, [{"type": "double"}], "2", 2),
        (True, [{"type": "boolean"}], "true", True),
        (None, None, "", None),
        ([1, 2], None, "[1, 2]", [1, 2]),
        (
            {"a": "é", "b": 2},
            [{"name": "a", "type": "string"}, {"name": "b", "type": "long"}],
            '{"a": "é", "b": 2}',
            ...,
        ),
        ({"k": 1}, [{"type": "map", "values": {"type": "long"}}], '{"k": 1}', {"k": 1}),
        (b"\xff", None, "/w==", b"\xff"),
    ],
)
def test_predictions_in_each_format(
    tmp_path: Path, prediction: object, outputs: object, cell: str, native: object
) -> None:
    native = prediction if native is ... else native
    signature = Signature.parse({"outputs": outputs})
    source = write(tmp_path / "in.csv", texts(["x"]))
    for suffix, expected in (("csv", cell), ("jsonl", native), ("parquet", native)):
        output = tmp_path / f"out.{suffix}"
        run_job(source, output, predict=lambda _: prediction, signature=signature)
        if suffix == "parquet" and prediction == {"k": 1}:
            expected = [("k", 1)]  # how pyarrow returns a map
        if suffix == "jsonl" and isinstance(prediction, bytes):
            expected = cell
        assert read(output) == [{"text": "x", "predictions": expected}]


def test_nan_is_null_in_json_and_unchanged_in_other_formats(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", texts(["x"]))
    for suffix in SUFFIXES:
        run_job(source, tmp_path / f"out.{suffix}", predict=lambda _: math.nan, signature=NUMBER)
    assert read(tmp_path / "out.jsonl")[0]["predictions"] is None
    assert math.isnan(float(read(tmp_path / "out.csv")[0]["predictions"]))
    assert math.isnan(read(tmp_path / "out.parquet")[0]["predictions"])


def test_prediction_that_the_format_cannot_represent_is_quarantined(tmp_path: Path) -> None:
    predictions = {"0": 1, "1": "one", "2": 2, "3": 3}
    source = write(tmp_path / "in.jsonl", texts(predictions))
    longs = Signature.parse({"outputs": [{"type": "long"}]})
    run_job(source, tmp_path / "out.parquet", lambda row: predictions[row.values[0]], signature=longs, window=1)
    assert [row["predictions"] for row in read(tmp_path / "out.parquet")] == [1, 2, 3]
    assert "does not fit the column's type int64" in quarantined(tmp_path / "out.parquet")[0]["cause"]
    for suffix in ("csv", "jsonl"):
        report = run_job(source, tmp_path / f"s.{suffix}", lambda row: {"text": "\ud800" * (row.values[0] == "2")})
        assert (report.rows_ok, report.rows_quarantined) == (3, 1)


PREDICTIONS: dict[str, list[object]] = {
    "numbers": [0, 1, 2, 3, 4.75, 1 << 53, (1 << 53) + 1],
    "records": [{"l": "a", "m": 1}, {"l": "b", "m": 2}, {"l": "c", "m": 3, "why": "z"}, {"l": 1}],
    "kinds": [True, False, True, True, 7, "seven", None, [1]],
}


@pytest.mark.parametrize("predictions", PREDICTIONS.values(), ids=PREDICTIONS)
def test_undeclared_predictions_are_not_truncated(tmp_path: Path, predictions: list[object]) -> None:
    source = write(tmp_path / "in.parquet", texts(str(n) for n in range(len(predictions))))
    output = tmp_path / "out.parquet"
    report = run_job(
        source, output, lambda row: {**row_of(predictions, row)}, signature=Signature(TEXT.inputs), window=2
    )
    assert report.rows_quarantined == 0
    written = [row["predictions"] for row in read(output)]
    expected = [a["l"] if isinstance(a, dict) and len(a) == 1 else a for a in predictions]
    assert written == [a if isinstance(a, str) or a is None else json.dumps(a) for a in expected]


def row_of(predictions: list[object], row: Row) -> dict[str, object]:
    """The row's prediction as a record, as models return the rows of a DataFrame."""
    prediction = predictions[int(str(row.get("text")))]
    return prediction if isinstance(prediction, dict) else {"p": prediction}


DECLARED: list[tuple[list[dict[str, object]], list[object], list[object]]] = [
    ([{"type": "long"}], [0, 4.75, True, "5", 2**63, None, 7], [0, None, 7]),
    ([{"type": "double"}], [0.5, 2, True, 2**53 + 1, "x", 3.0], [0.5, 2.0, 3.0]),
    ([{"type": "float"}], [0.5, 1e300], [0.5]),
    ([{"type": "boolean"}], [True, 1, "true"], [True]),
    ([{"type": "string"}], ["a", 5, [1]], ["a", "5", "[1]"]),
    (
        [{"name": "l", "type": "string"}, {"name": "n", "type": "long"}],
        [{"l": "a", "n": 1}, {"l": "b", "n": 1.5}, {"l": "c", "n": 2, "why": "z"}, {"l": "d"}, "e"],
        [{"l": "a", "n": 1}, {"l": "d", "n": None}],
    ),
]


@pytest.mark.parametrize(("outputs", "predictions", "kept"), DECLARED, ids=lambda value: str(value)[:30])
def test_predictions_that_do_not_fit_the_declared_type_are_quarantined(
    tmp_path: Path, outputs: list[dict[str, object]], predictions: list[object], kept: list[object]
) -> None:
    source = write(tmp_path / "in.parquet", texts(str(n) for n in range(len(predictions))))
    output = tmp_path / "out.parquet"
    signature = Signature.parse({"inputs": [{"name": "text", "type": "string"}], "outputs": outputs})
    report = run_job(source, output, lambda row: predictions[int(row.get("text"))], signature=signature, window=2)
    written = [row["predictions"] for row in read(output)]
    assert written == kept
    assert [type(value) for value in written] == [type(value) for value in kept]
    assert report.rows_quarantined == len(predictions) - len(kept)


def test_seconds_do_not_include_loading_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("likewise.batch.run.time.monotonic", lambda: now[0])

    def load() -> FunctionEngine:
        now[0] += 100
        return FunctionEngine(lambda _: {"text": "x"})

    source = write(tmp_path / "in.csv", texts(["a"]))
    for budget in (None, 32):
        assert run_job(source, tmp_path / f"out-{budget}", engine=LazyEngine(load), budget=budget).seconds == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_row_has_the_params_of_the_job(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / f"in.{suffix}", [{"text": "a"}, {"text": "b"}])
    with_params = lambda row: f"{row.get('text')}{row.params}"  # noqa: E731
    run_job(source, tmp_path / "local.csv", with_params, params={"k": 3})
    run_on(InProcess(with_params), source, tmp_path / "workers.csv", params={"k": 3})
    run_job(source, tmp_path / "none.csv", with_params)
    predicted = {name: [row["predictions"] for row in read(tmp_path / name)] for name in ("local.csv", "none.csv")}
    assert predicted == {"local.csv": ["a{'k': 3}", "b{'k': 3}"], "none.csv": ["aNone", "bNone"]}
    assert (tmp_path / "workers.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_column_mapping_does_not_rename_output_columns(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"review": "a", "text": "not this"}])
    run_job(source, tmp_path / "out.csv", column={"review": "text"})
    assert read(tmp_path / "out.csv") == [{"review": "a", "text": "not this", "predictions": "<A>"}]


def test_model_without_signature_gets_all_columns(tmp_path: Path) -> None:
    seen: list[Row] = []
    source = write(tmp_path / "in.csv", [{"a": "1", "b": "2"}])
    run_job(source, tmp_path / "o.csv", lambda row: seen.append(row) or 0, signature=UNSIGNED, column={"a": "x"})
    run_job(source, tmp_path / "p.csv", lambda row: seen.append(row) or 0, signature=UNSIGNED, column={"a": "b"})
    assert seen == [Row(("x", "b"), (1, 2)), Row(("b",), (1,))]


def test_json_lines_text_is_cast_to_types_that_json_lacks(tmp_path: Path) -> None:
    seen: list[Row] = []
    signature = Signature.parse({"inputs": [{"name": "t", "type": "datetime"}, {"name": "b", "type": "binary"}]})
    source = write(tmp_path / "in.jsonl", [{"t": "2020-01-02", "b": "AP8="}, {"t": "2020-01-02", "b": "not base64"}])
    report = run_job(source, tmp_path / "o.jsonl", lambda row: seen.append(row) or 0, signature=signature)
    assert seen == [Row(("t", "b"), (datetime(2020, 1, 2), b"\x00\xff"))]
    assert report.rows_quarantined == 1


def test_unnamed_model_input_takes_the_only_column(tmp_path: Path) -> None:
    seen: list[Row] = []
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}
    source = write(tmp_path / "in.csv", [{"v": "[1.0, 2.0]"}])
    run_job(
        source, tmp_path / "o.csv", lambda row: seen.append(row) or 0, signature=Signature.parse({"inputs": [tensor]})
    )
    assert seen == [Row(None, ([1.0, 2.0],))]


def test_optional_column_may_be_missing(tmp_path: Path) -> None:
    inputs = [{"name": "text", "type": "string"}, {"name": "hint", "type": "string", "required": False}]
    source = write(tmp_path / "in.csv", texts(["a"]))
    assert run_job(source, tmp_path / "o.csv", signature=Signature.parse({"inputs": inputs})).rows_ok == 1


def test_equal_rows_are_scored_once_if_the_engine_is_pure(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"n": str(n), "text": f"t{n % 3}"} for n in range(30)])
    for pure, scored in ((True, 3), (False, 30)):
        engine = FunctionEngine(lambda row: {"text": row.get("text")}, pure=pure)
        report = run_job(source, tmp_path / f"out-{pure}.csv", engine=engine)
        assert (sum(engine.windows), report.duplicates, report.rows_ok) == (scored, 30 - scored, 30)
        assert [row["predictions"] for row in read(tmp_path / f"out-{pure}.csv")] == [f"t{n % 3}" for n in range(30)]


def test_batches_respect_the_token_budget(tmp_path: Path) -> None:
    engine = FunctionEngine(lambda row: len(row.get("text")))
    source = write(tmp_path / "in.csv", texts("x" * n for n in range(1, 200)))
    report = run_job(source, tmp_path / "o.csv", engine=engine, budget=50, signature=Signature(TEXT.inputs))
    assert len(engine.windows) > 20
    assert [int(row["predictions"]) for row in read(tmp_path / "o.csv")] == list(range(1, 200))
    assert report.tokens > 199


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_progress_increases_to_100_percent(tmp_path: Path, suffix: str) -> None:
    seen: list[Progress] = []
    source = write(tmp_path / f"in.{suffix}", texts(f"text {n}" for n in range(200)))
    report = run_job(source, tmp_path / "out", progress=seen.append, window=40)
    assert all(a.rows <= b.rows and a.fraction <= b.fraction and a.tokens <= b.tokens for a, b in pairwise(seen))
    assert (seen[-1].rows, seen[-1].fraction, seen[-1].tokens) == (200, 1.0, report.tokens)
    assert {p.total for p in seen} == ({200} if suffix == "parquet" else {None})
