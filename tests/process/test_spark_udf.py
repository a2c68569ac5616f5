"""The UDF in the place of MLflow's: `Bundle.predict`'s answers however Spark cuts its batches."""

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
def test_answers_are_the_bundles_for_every_size_of_batch(spark: Any, text_model: api.Bundle) -> None:
    udf = likewise.spark.udf(spark, text_model, "string")
    found = frame_of(spark, TEXTS).select("id", udf("text")).collect()
    assert dict(map(tuple, found)) == dict(enumerate(predicted(text_model, TEXTS)))


def test_a_struct_no_columns_and_other_names_say_the_same(spark: Any, text_model: api.Bundle) -> None:
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
def test_result_types_pick_columns_as_spark_udf_does(
    spark: Any, code_model: api.Bundle, result_type: str | None, expected: object
) -> None:
    import mlflow.pyfunc

    frame = frame_of(spark, ["good"], 1)
    assert answer(frame, likewise.spark.udf(spark, code_model, result_type)) == expected
    theirs = mlflow.pyfunc.spark_udf(spark, str(code_model.model_path), result_type=result_type)
    if result_type != "int":  # theirs takes no int64 for it
        assert answer(frame, theirs) == expected


def answer(frame: Any, udf: Any) -> object:
    """Of the frame's one row; `first` would end the worker, which a later query uses again after `collect`."""
    ((value,),) = frame.select(udf("text")).collect()
    return value.asDict() if hasattr(value, "asDict") else value


def test_a_bad_row_fails_the_query_or_is_null_alone(spark: Any, logging_model: api.Bundle) -> None:
    from pyspark.errors import PythonException

    frame = frame_of(spark, ["a", "poison", None, "b"], 1).orderBy("id").coalesce(1)
    lenient = likewise.spark.udf(spark, logging_model, "string", on_error="null")
    found = [row[0] for row in frame.select(lenient("text")).collect()]
    assert found == ["A", None, *predicted(logging_model, [None, "b"])]
    strict = likewise.spark.udf(spark, logging_model, "string")
    with pytest.raises(PythonException, match="poison"):
        frame.select(strict("text")).collect()


def test_one_engine_a_worker_process(spark: Any, logging_model: api.Bundle, tmp_path: Path) -> None:
    udf = likewise.spark.udf(spark, logging_model, "string")
    for _ in range(3):
        frame_of(spark, TEXTS, 6).select(udf("text")).collect()
    opened = log_of(tmp_path, OPENED)
    assert 1 <= len(opened) == len(set(opened)) < 6  # of 18 tasks; a session that others used has idle workers too


def test_score_frame_keeps_the_rows_and_says_why(spark: Any, logging_model: api.Bundle) -> None:
    frame = frame_of(spark, ["a", "poison", "b"], 1).withColumnRenamed("text", "review")
    scored = likewise.spark.score_frame(frame, logging_model, column={"review": "text"}, result_type="string")
    found = {row["review"]: row for row in scored.collect()}
    assert scored.columns == ["id", "review", "predictions", "error"]
    assert [found[text]["predictions"] for text in ("a", "b")] == ["A", "B"]
    assert found["a"]["error"] is None
    assert found["poison"]["predictions"] is None
    assert found["poison"]["error"]["code"] == "MODEL_RAISED"
    assert "poison" in found["poison"]["error"]["cause"]


def test_what_cannot_be_is_said_before_anything_runs(spark: Any, logging_model: api.Bundle) -> None:
    with pytest.raises(WrongUsage, match="no type of Spark's"):
        likewise.spark.udf(spark, logging_model, "wether")
    with pytest.raises(WrongUsage, match="on_error"):
        likewise.spark.udf(spark, logging_model, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(InputInvalid, match="no column `text`"):
        likewise.spark.score_frame(spark.range(1), logging_model)
    with pytest.raises(InputInvalid, match="already has a column `error`"):
        likewise.spark.score_frame(spark.sql("select 'a' as text, 1 as error"), logging_model)


def test_a_stream_stopped_half_way_ends_with_every_row_once(
    spark: Any, logging_model: api.Bundle, tmp_path: Path
) -> None:
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
    with pytest.raises(Exception, match="stopped by the test"):  # the query dies in its second batch
        scored().foreachBatch(_broken_at(1, output)).trigger(availableNow=True).start().awaitTermination()
    assert spark.read.parquet(str(output)).count() == 2
    add("three", ["d", "a"])
    scored().foreachBatch(_broken_at(-1, output)).trigger(availableNow=True).start().awaitTermination()
    found = spark.read.parquet(str(output)).collect()
    assert sorted((row["text"], row["predictions"]) for row in found if row["error"] is None) == [
        ("a", "A"),
        ("a", "A"),
        ("b", "B"),
        ("c", "C"),
        ("d", "D"),
    ]
    assert [row["text"] for row in found if row["error"]] == ["poisonous"]


def _broken_at(number: int, output: Path) -> Any:
    def keep(frame: Any, batch: int) -> None:
        if batch == number:
            raise RuntimeError("stopped by the test")
        frame.write.mode("append").parquet(str(output))

    return keep
