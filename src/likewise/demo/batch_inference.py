"""Batch inference as the book does it: plain MLflow and plain Spark, nothing of Likewise.

`python -m likewise.demo.batch_inference MODEL_URI INPUT.csv OUTPUT`; OUTPUT becomes a folder of Parquet files with the
input's columns and `predictions`.
"""

from __future__ import annotations

import os
import sys

import mlflow.pyfunc
from pyspark.sql import SparkSession
from pyspark.sql.types import StringType


def main(model_uri: str, source: str, output: str) -> None:
    """Score `source` on a local Spark of as many cores as there are."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark's workers run in this very environment
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
