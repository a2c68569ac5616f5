"""A driver in a process of its own: `spark_driver.py MASTER BUNDLE CONF.json TEXTS.json [INPUT OUTPUT]`.

The bundle is trusted. With INPUT, a job in the same session scores that to OUTPUT.

Prints one JSON line: each text with its UDF's answer, and what the workers run under; or the error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import likewise.spark
from likewise.batch import ScoreOptions
from likewise.core.errors import LikewiseError
from likewise.targets.spark.session import session


def main() -> int:
    master, bundle, conf, texts, *job = sys.argv[1:]
    try:
        spark, _ = session(master, json.loads(Path(conf).read_bytes()))
        try:
            told = _answers(spark, bundle, json.loads(Path(texts).read_bytes()))
            if job:
                options = ScoreOptions(runner="spark", master=master)
                told["report"] = likewise.score(bundle, *job, options=options, trust=True).as_dict()
            print(json.dumps(told))
        finally:
            spark.stop()
    except LikewiseError as error:
        print(json.dumps(error.as_dict()))
        return error.exit_code
    return 0


def _answers(spark: Any, bundle: str, texts: list[str]) -> dict[str, Any]:
    frame = spark.createDataFrame([(text,) for text in texts], "text string").repartition(4)
    udf = likewise.spark.udf(spark, bundle, "string", trust=True)
    found = {row[0]: row[1] for row in frame.select("text", udf("text")).collect()}
    where = frame.mapInArrow(_where, "python string, package string").distinct().collect()
    return {"answers": found, "workers": [list(row) for row in where]}


def _where(batches: Iterator[Any]) -> Iterator[Any]:
    import importlib.util
    import sys

    import pyarrow as pa

    for _ in batches:
        pass
    spec = importlib.util.find_spec("likewise")
    yield pa.RecordBatch.from_pydict({"python": [sys.executable], "package": [spec.origin if spec else "none"]})


if __name__ == "__main__":
    sys.exit(main())
