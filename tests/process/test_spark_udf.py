"""The UDF that replaces MLflow's: the predictions of `Bundle.predict` for any size of Spark's batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.spark.bundles import OPENED, log_of, predicted

import likewise.spark
from likewise import api
from likewise.core.errors import InputInvalid, WrongUsage

pytest_plugins = ("tests.support.spark.fixtures",)
pytestmark = [
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TEXTS = ["", "naïve café, 这部电影 😀", *(f"movie {n % 40} is {'good ' * (n % 9)}" for n in range(400))]


@pytest.fixture
def batch_rows(spark: Any, request: pytest.FixtureRequest) -> Any:
    name = "spark.sql.execution.arrow.maxRecordsPerBatch"
    spark.conf.set(name, request.param)
    yield
    spark.conf.unset(name)


def frame_of(spark: Any, texts: list[Any], partitions: int = 3) -> Any:
    rows = list(enumerate(texts))
    return spark.createDataFrame(rows, "id int, text string").repartition(partitions)


@pytest.mark.parametrize("batch_rows", [1, 7, 10000], indirect=True)
@pytest.mark.usefixtures("batch_rows")
def test_predictions_match_the_bundle_for_every_batch_size(spark: Any, text_model: api.Bundle) -> None:
    udf = likewise.spark.udf(spark, text_model, "string")
    rows = frame_of(spark, TEXTS).select("id", udf("text")).collect()
    assert dict(map(tuple, rows)) == dict(enumerate(predicted(text_model, TEXTS)))


def test_struct_no_arguments_and_renamed_columns_give_the_same_predictions(spark: Any, text_model: api.Bundle) -> None:
    from pyspark.sql.functions import col, struct
    from pyspark.sql.types import StringType

    udf = likewise.spark.udf(spark, text_model.path, StringType())
    frame = frame_of(spark, TEXTS[:50]).withColumn("review", col("text"))
    columns = [udf("text"), udf(struct("id", "text")), udf(), udf("review"), udf(col("review"))]
    for row in frame.select(*columns).collect():
        assert len(set(row)) == 1


@pytest.mark.parametrize(
    ("result_type", "expected"),
    [
        (None, {"text": "GOOD", "length": 4}),
        ("long", 4),
        ("int", 4),
        ("double", 4.0),
        ("string", "GOOD"),
        ("array<string>", ["GOOD", "4"]),
        ("array<double>", [4.0]),
        ("length bigint", {"length": 4}),
    ],
)
def test_result_types_select_columns_like_mlflows_udf(
    spark: Any, code_model: api.Bundle, result_type: str | None, expected: object
) -> None:
    import mlflow.pyfunc

    frame = frame_of(spark, ["good"], 1)
    assert value_of(frame, likewise.spark.udf(spark, code_model, result_type)) == expected
    mlflow_udf = mlflow.pyfunc.spark_udf(spark, str(code_model.model_path), result_type=result_type)
    if result_type != "int":  # MLflow's does not convert int64 to it
        assert value_of(frame, mlflow_udf) == expected


def value_of(frame: Any, udf: Any) -> object:
    """The UDF's value for the single row; not with `first`, which would stop the worker that later queries use."""
    ((value,),) = frame.select(udf("text")).collect()
    return value.asDict() if hasattr(value, "asDict") else value


def test_bad_row_fails_the_query_or_is_null(spark: Any, logging_model: api.Bundle) -> None:
    from pyspark.errors import PythonException

    frame = frame_of(spark, ["a", "poison", None, "b"], 1).orderBy("id").coalesce(1)
    lenient = likewise.spark.udf(spark, logging_model, "string", on_error="null")
    values = [row[0] for row in frame.select(lenient("text")).collect()]
    assert values == ["A", None, *predicted(logging_model, [None, "b"])]
    strict = likewise.spark.udf(spark, logging_model, "string")
    with pytest.raises(PythonException, match="poison"):
        frame.select(strict("text")).collect()


def test_one_engine_per_worker_process(spark: Any, logging_model: api.Bundle, tmp_path: Path) -> None:
    udf = likewise.spark.udf(spark, logging_model, "string")
    for _ in range(3):
        frame_of(spark, TEXTS, 6).select(udf("text")).collect()
    opened = log_of(tmp_path, OPENED)
    assert (
        1 <= len(opened) == len(set(opened)) < 6
    )  # for 18 tasks; the shared session may have idle workers of other tests


def test_score_frame_keeps_rows_and_reports_errors(spark: Any, logging_model: api.Bundle) -> None:
    frame = frame_of(spark, ["a", "poison", "b"], 1).withColumnRenamed("text", "review")
    scored = likewise.spark.score_frame(frame, logging_model, column={"review": "text"}, result_type="string")
    rows = {row["review"]: row for row in scored.collect()}
    assert scored.columns == ["id", "review", "predictions", "error"]
    assert [rows[text]["predictions"] for text in ("a", "b")] == ["A", "B"]
    assert rows["a"]["error"] is None
    assert rows["poison"]["predictions"] is None
    assert rows["poison"]["error"]["code"] == "MODEL_RAISED"
    assert "poison" in rows["poison"]["error"]["cause"]


def test_invalid_arguments_are_rejected_before_anything_runs(spark: Any, logging_model: api.Bundle) -> None:
    with pytest.raises(WrongUsage, match="is not a valid Spark type"):
        likewise.spark.udf(spark, logging_model, "wether")
    with pytest.raises(WrongUsage, match="on_error"):
        likewise.spark.udf(spark, logging_model, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(InputInvalid, match="no column `text`"):
        likewise.spark.score_frame(spark.range(1), logging_model)
    with pytest.raises(InputInvalid, match="already has a column `error`"):
        likewise.spark.score_frame(spark.sql("select 'a' as text, 1 as error"), logging_model)


def test_interrupted_stream_writes_every_row_once(spark: Any, logging_model: api.Bundle, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()

    def add(name: str, texts: list[str]) -> None:
        spark.createDataFrame([(text,) for text in texts], "text string").coalesce(1).write.json(str(tmp_path / name))
        part = next((tmp_path / name).glob("part-*"))
        part.rename(source / f"{name}.json")

    def scored() -> Any:
        stream = spark.readStream.schema("text string").option("maxFilesPerTrigger", 1).json(str(source))
        return (
            likewise.spark.score_frame(stream, logging_model, result_type="string")
            .writeStream.format("parquet")
            .option("checkpointLocation", str(tmp_path / "checkpoint"))
        )

    add("one", ["a", "b"])
    add("two", ["poisonous", "c"])
    with pytest.raises(Exception, match="stopped by the test"):  # the query fails in its second batch
        scored().foreachBatch(_failing_at(1, output)).trigger(availableNow=True).start().awaitTermination()
    assert spark.read.parquet(str(output)).count() == 2
    add("three", ["d", "a"])
    scored().foreachBatch(_failing_at(-1, output)).trigger(availableNow=True).start().awaitTermination()
    rows = spark.read.parquet(str(output)).collect()
    assert sorted((row["text"], row["predictions"]) for row in rows if row["error"] is None) == [
        ("a", "A"),
        ("a", "A"),
        ("b", "B"),
        ("c", "C"),
        ("d", "D"),
    ]
    assert [row["text"] for row in rows if row["error"]] == ["poisonous"]


def _failing_at(number: int, output: Path) -> Any:
    def keep(frame: Any, batch: int) -> None:
        if batch == number:
            raise RuntimeError("stopped by the test")
        frame.write.mode("append").parquet(str(output))

    return keep
