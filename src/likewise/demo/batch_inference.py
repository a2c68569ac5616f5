"""Batch inference with plain MLflow and plain Spark, without Likewise, for comparison.

`python -m likewise.demo.batch_inference MODEL_URI INPUT.csv OUTPUT`; OUTPUT is a folder of Parquet files with the
input's columns and `predictions`.
"""

from __future__ import annotations

import os
import sys

import mlflow.pyfunc
from pyspark.sql import SparkSession
from pyspark.sql.types import StringType


def main(model_uri: str, source: str, output: str) -> None:
    """Score `source` with local Spark on all cores."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark's workers run in this environment
    spark = (
        SparkSession.builder.master("local[*]")
        .appName("batch_inference")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    try:
        frame = spark.read.csv(source, header=True, multiLine=True, escape='"')
        predict = mlflow.pyfunc.spark_udf(spark, model_uri=model_uri, result_type=StringType(), env_manager="local")
        frame.withColumn("predictions", predict("text")).write.mode("overwrite").parquet(output)
    finally:
        spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
