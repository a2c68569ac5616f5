"""A driver in a separate process: `driver.py MASTER CONF.json REQUESTS.json`, with a session on the cluster MASTER.

A request is `{"bundle": …, "texts": […], "job": [INPUT, OUTPUT] or null}`; its bundle is trusted. Prints one line of
JSON: for each request the UDF's prediction for each text, the workers' Python, and the job's report; or the error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import likewise.spark
from likewise.batch import ScoreOptions
from likewise.core.errors import LikewiseError
from likewise.targets.spark.session import session


def main() -> int:
    master, conf, requests = sys.argv[1:]
    try:
        spark, _ = session(master, json.loads(Path(conf).read_bytes()))
        try:
            print(json.dumps([_execute(spark, master, **each) for each in json.loads(Path(requests).read_bytes())]))
        finally:
            spark.stop()
    except LikewiseError as error:
        print(json.dumps(error.as_dict()))
        return error.exit_code
    return 0


def _execute(
    spark: Any, master: str, *, bundle: str, texts: list[str], job: tuple[str, str] | None = None
) -> Mapping[str, Any]:
    frame = spark.createDataFrame([(text,) for text in texts], "text string").repartition(4)
    udf = likewise.spark.udf(spark, bundle, "string", trust=True)
    predictions = {row[0]: row[1] for row in frame.select("text", udf("text")).collect()}
    workers = frame.mapInArrow(_worker_info, "python string, package string").distinct().collect()
    options = ScoreOptions(runner="spark", master=master)
    return {
        "predictions": predictions,
        "workers": [list(row) for row in workers],
        "report": likewise.score(bundle, *job, options=options, trust=True).as_dict() if job else None,
    }


def _worker_info(batches: Iterator[Any]) -> Iterator[Any]:
    import importlib.util
    import sys

    import pyarrow as pa

    for _ in batches:
        pass
    spec = importlib.util.find_spec("likewise")
    yield pa.RecordBatch.from_pydict({"python": [sys.executable], "package": [spec.origin if spec else "none"]})


if __name__ == "__main__":
    sys.exit(main())
