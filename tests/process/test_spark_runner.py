"""Jobs on a local Spark: output identical to the local runner's, bad rows in quarantine, no work repeated on resume."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.batch.running_job import RunningJob
from tests.support.models import save_code, seal
from tests.support.otlp import check_job, collector
from tests.support.spark.bundles import PREDICTED, log_of, quick_bundle
from tests.support.spark.cluster import java_env

from likewise import api
from likewise.batch import JobReport, ScoreOptions
from likewise.core.errors import InputNotFound, ModelFailed, OutputRefused, WrongUsage
from likewise.telemetry import jobs

pytest_plugins = ("tests.support.spark.fixtures",)
pytestmark = [
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.usefixtures("spark"),
]
ROWS = 600
ON_SPARK = ScoreOptions(runner="spark", window=100)

SUM = """
import mlflow

class Sum(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        sums = model_input["a"] + model_input["b"]
        return [{"kind": str(model_input["b"].dtype), "sums": [each]} for each in sums]

mlflow.models.set_model(Sum())
"""


def text_of(row: int) -> str:
    return f'movie {row % 150}, "{"good " * (row % 9)}"'


def write_csv(path: Path) -> None:
    with path.open("wb") as stream:
        stream.write(b"id,text\n")
        for row in range(ROWS):
            bad = [b"bad \xff byte", b'"open, quote']
            quoted = '"' + text_of(row).replace('"', '""') + '"'
            text = bad[row // 100 % 2] if row % 100 == 50 else quoted.encode()
            stream.write(b"%d,%s\n" % (row, text))


def write_jsonl(path: Path) -> None:
    bad = [b'{"id": 1, "text": null}', b"not JSON", b'{"text": "\\ud800"}', b'{"id": 5}', b'{"text": "\xff"}', b"[1]"]
    with path.open("wb") as stream:
        for row in range(ROWS):
            valid = json.dumps({"id": row, "text": text_of(row)}).encode()
            stream.write((bad[row // 100] if row % 100 == 50 else valid) + b"\n")


def write_parquet(path: Path) -> None:
    texts = [None if row % 100 == 50 else text_of(row).encode() for row in range(ROWS)]
    texts[150] = b"bad \xff byte"
    column = pa.array(texts, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": pa.array(range(ROWS), "int64"), "text": column}), path, row_group_size=200)


INPUTS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def rows_of(output: Path) -> Any:
    (part,) = output.glob("part-*")
    return pq.read_table(part) if part.suffix == ".parquet" else part.read_bytes()


def quarantine(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(output / "_quarantine.parquet").to_pylist()
    return rows


@pytest.mark.parametrize(
    ("name", "output_format"), [("csv", None), ("jsonl", None), ("parquet", None), ("csv", "parquet")]
)
def test_output_is_identical_to_the_local_runners(
    text_model: api.Bundle, tmp_path: Path, name: str, output_format: str | None
) -> None:
    source = tmp_path / f"in.{name}"
    INPUTS[name](source)
    reports: list[JobReport] = []
    for runner in ("local", "spark"):
        options = ScoreOptions(runner=runner, window=100, format=output_format)
        reports.append(api.score(text_model, source, tmp_path / runner, options=options))
    local, spark = reports
    assert spark.rows_in == ROWS == spark.rows_ok + spark.rows_quarantined
    assert spark.rows_quarantined == local.rows_quarantined >= ROWS // 100
    assert rows_of(tmp_path / "spark") == rows_of(tmp_path / "local")
    assert quarantine(tmp_path / "spark") == quarantine(tmp_path / "local")
    assert spark.reasons == local.reasons != []
    manifest = json.loads((tmp_path / "spark" / "_likewise.json").read_bytes())
    assert manifest == {**spark.as_dict(), "quarantine": "_quarantine.parquet"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, "local", "spark"])


def test_types_are_inferred_as_by_the_local_runner(tmp_path: Path) -> None:
    """Without a signature: types of CSV columns from all files, and the type of the predictions from all answers."""
    save_code(tmp_path / "bundle/model", SUM)
    bundle = api.open_bundle(seal(tmp_path / "bundle").path, trust=True)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("a,b\n" + "".join(f"{n},{2 * n}\n" for n in range(300)))
    (folder / "b.csv").write_text("a,b\n1,0.5\n")
    for runner in ("local", "spark"):
        options = ScoreOptions(runner=runner, window=100, format="parquet")
        report = api.score(bundle, folder, tmp_path / runner, options=options)
        assert report.input_types == {"a": "long", "b": "double"}
        assert report.prediction_type == "struct<kind: string, sums: list<element: double>>"
    assert rows_of(tmp_path / "spark") == rows_of(tmp_path / "local")
    assert rows_of(tmp_path / "spark")["predictions"][300].as_py() == {"kind": "float64", "sums": [1.5]}


def test_several_input_files_with_one_output_file(text_model: api.Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        write_csv(folder / f"{name}.csv")
    report = api.score(text_model, folder, tmp_path / "out.csv", options=ON_SPARK)
    api.score(text_model, folder, tmp_path / "local.csv", options=ScoreOptions(window=100))
    assert report.rows_in == 2 * ROWS
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
    bad = pq.read_table(tmp_path / "out.csv.quarantine.parquet").to_pylist()
    assert {(row["file"], row["row"]) for row in bad} >= {("a.csv", 51), ("b.csv", 51)}


def test_table_as_input(spark: Any, logging_model: api.Bundle, tmp_path: Path) -> None:
    rows = [(number, "poison" if number == 7 else f"text {number}") for number in range(300)]
    spark.createDataFrame(rows, "id int, text string").repartition(3).createOrReplaceTempView("reviews")
    reported: list[Any] = []
    output = tmp_path / "out"
    report = api.score(logging_model, "table:reviews", output, options=ON_SPARK, progress=reported.append)
    assert (report.rows_in, report.rows_ok, report.rows_quarantined) == (300, 299, 1)
    scored = pq.read_table(next(output.glob("part-*"))).to_pylist()
    assert {row["id"]: row["predictions"]["text"] for row in scored} == {
        number: text.upper() for number, text in rows if number != 7
    }
    (bad,) = quarantine(output)
    assert bad["file"] == "table:reviews"
    assert json.loads(bad["columns"]) == {"id": 7, "text": "poison"}
    assert 1 <= bad["row"] <= 300
    assert (reported[-1].rows, reported[-1].total, reported[-1].fraction) == (300, 300, 1.0)


@pytest.mark.long
def test_tasks_export_spans_in_the_trace_of_the_job(
    spark: Any, logging_model: api.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.csv").write_text("id,text\n" + "".join(f"{row},private {row}\n" for row in range(300)))
    caller = f"00-{'5' * 32}-{'6' * 16}-01"
    with collector() as received:
        for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_BSP_SCHEDULE_DELAY"):
            monkeypatch.setenv(name, received.env[name])
            monkeypatch.setitem(spark.sparkContext.environment, name, received.env[name])  # as spark.executorEnv
        monkeypatch.setenv("TRACEPARENT", caller)
        jobs.process_tracer.cache_clear()
        try:
            api.score(logging_model, tmp_path / "in.csv", tmp_path / "out", options=ON_SPARK)
        finally:
            jobs.process_tracer.cache_clear()
        chunks = check_job(received, caller, "spark", 300, "private")
    assert len(chunks) >= 3


def test_failed_jobs_are_reported_and_leave_no_output(spark: Any, logging_model: api.Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputNotFound, match="no table"):
        api.score(logging_model, "table:nobody", tmp_path / "out", options=ON_SPARK)
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": f"poison {row}"}) + "\n" for row in range(200)))
    with pytest.raises(ModelFailed, match="each of the first"):
        api.score(logging_model, source, tmp_path / "out", options=ON_SPARK)
    with pytest.raises(WrongUsage, match="session on local"):
        api.score(logging_model, source, tmp_path / "out", options=ScoreOptions(runner="spark", master="local[7]"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(OutputRefused, match="contains other files"):
        api.score(logging_model, source, tmp_path / "out", options=ON_SPARK)


@pytest.mark.long
def test_job_of_a_killed_driver_is_resumed(tmp_path: Path) -> None:
    """Another process resumes with the results of the killed one."""
    rows, window = 320, 32
    bundle = quick_bundle(tmp_path, 0.01)
    source, output = tmp_path / "in.jsonl", tmp_path / "out"
    source.write_text("".join(json.dumps({"text": f"text {row}"}) + "\n" for row in range(rows)))
    before = killed_driver(bundle.path, source, output, window)
    assert not output.exists()
    resumed: list[int] = []
    options = ScoreOptions(runner="spark", window=window)
    report = api.score(bundle, source, output, options=options, progress=lambda each: resumed.append(each.resumed))
    assert min(resumed) == max(resumed) >= before > 0
    assert (report.rows_in, report.rows_ok) == (rows, rows)
    lines = rows_of(output).splitlines()
    assert Counter(json.loads(line)["text"] for line in lines) == Counter(f"text {row}" for row in range(rows))
    predictions = Counter(log_of(tmp_path, PREDICTED))
    assert len(predictions) == rows
    assert sum(predictions.values()) <= rows + 2 * window  # at most the two chunks in progress are repeated


def killed_driver(bundle: Path, source: Path, output: Path, window: int) -> int:
    """The number of rows in the output of a driver that was killed after its first chunk."""
    options = ["--trust", "--window", str(window), "--runner", "spark", "--master", "local[2]"]
    options += ["--conf", "spark.ui.enabled=false"]
    with RunningJob(bundle, source, output, options, os.environ | java_env(output.parent)) as driver:
        driver.reach(1)
        driver.kill()  # the JVM too; its workers exit when they notice
        return window * len(driver.chunks)
