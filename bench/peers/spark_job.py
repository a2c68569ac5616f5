"""`python -m bench.peers.spark_job mlflow|likewise MODEL CSV CORES` applies a UDF to a file's column `text`.

Prints one JSON object: seconds until every core has scored its first rows, and rows per second after that.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

FIRST = 4  # rows per core that are scored before the clock starts, so that workers run and models are loaded
CONF = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "1", "spark.driver.memory": "2g"}


def main(tool: str, model: str, csv: str, cores: int) -> None:
    """Read rows from a file, add a column of predictions, and write Parquet."""
    started_at = time.perf_counter()
    import pandas as pd
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{cores}]")
    for name, value in CONF.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    texts = pd.read_csv(csv, keep_default_na=False)["text"].tolist()
    predict = UDFS[tool](spark, model)

    def score(rows: list[tuple[int, str]]) -> tuple[float, list[str]]:
        frame = spark.createDataFrame(rows, "id long, text string").repartition(cores).cache()
        frame.count()
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            frame.withColumn("predictions", predict("text")).write.mode("overwrite").parquet(folder)
            seconds = time.perf_counter() - start
            rows_out = spark.read.parquet(folder).orderBy("id").collect()
        return seconds, [_label(row.predictions) for row in rows_out]

    score([(number, f"warm {number}") for number in range(FIRST * cores)])
    first = time.perf_counter() - started_at
    seconds, labels = score(list(enumerate(texts)))
    spark.stop()
    result = {"seconds_to_first": round(first, 1), "rows_per_s": round(len(labels) / seconds, 2), "labels": labels}
    print(json.dumps(result), flush=True)


def _label(prediction: str) -> str:
    """The label in the pipeline's response, or the prediction of a model that returns labels."""
    if not prediction.startswith("{"):
        return prediction
    label: str = json.loads(prediction)["response"]["prediction_label"][0]
    return label


def _mlflow(spark: Any, model: str) -> Any:
    import mlflow.pyfunc

    return mlflow.pyfunc.spark_udf(spark, model_uri=model, result_type="string", env_manager="local")


def _likewise(spark: Any, model: str) -> Any:
    import likewise.spark

    return likewise.spark.udf(spark, model, "string")


UDFS: dict[str, Callable[[Any, str], Any]] = {"mlflow": _mlflow, "likewise": _likewise}

if __name__ == "__main__":
    _, name, uri, rows, tasks = sys.argv
    main(name, uri, rows, int(tasks))
