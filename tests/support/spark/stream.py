"""A streaming query with one file per batch, as a function and as a process: `stream.py BUNDLE FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import likewise.spark
from likewise.targets.spark.session import session


def score_stream(spark: Any, bundle: Path, folder: Path) -> None:
    """Score the new files in `folder`/in to `folder`/out, and stop when there are no more."""
    stream = spark.readStream.schema("id int, text string").option("maxFilesPerTrigger", 1).json(str(folder / "in"))
    scored = likewise.spark.score_frame(stream, bundle, result_type="string", trust=True)
    query = scored.writeStream.format("parquet").option("checkpointLocation", str(folder / "checkpoint"))
    query.trigger(availableNow=True).start(str(folder / "out")).awaitTermination()


def main() -> None:
    bundle, folder = map(Path, sys.argv[1:])
    spark, _ = session("local[2]", {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "1"})
    score_stream(spark, bundle, folder)
    spark.stop()


if __name__ == "__main__":
    main()
