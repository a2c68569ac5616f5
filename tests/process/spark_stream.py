"""A streaming query in a process of its own: `spark_stream.py BUNDLE SOURCE OUTPUT CHECKPOINT`; a file a batch."""

from __future__ import annotations

import sys

import likewise.spark
from likewise.targets.spark.session import session


def main() -> None:
    bundle, source, output, checkpoint = sys.argv[1:]
    spark, _ = session("local[2]", {"spark.ui.enabled": "false"})
    stream = spark.readStream.schema("id int, text string").option("maxFilesPerTrigger", 1).json(source)
    scored = likewise.spark.score_frame(stream, bundle, result_type="string", trust=True)
    query = scored.writeStream.format("parquet").option("checkpointLocation", checkpoint)
    query.trigger(availableNow=True).start(output).awaitTermination()
    spark.stop()


if __name__ == "__main__":
    main()
