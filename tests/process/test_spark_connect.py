"""Spark Connect: no JVM in the driver's process, and the same answers, for the UDF, for frames and for jobs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.process.spark_room import predicted

from likewise import api
from likewise.batch import ScoreOptions

pytest_plugins = ("tests.process.spark_fixtures",)
needed = [name for name in ("grpc_status", "zstandard") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(needed), reason=f"Spark Connect needs {needed}: pip install grpcio-status zstandard"),
]

CODE = """
import json, os, sys
from pyspark.sql import SparkSession
import likewise, likewise.spark
from likewise.batch import ScoreOptions
from likewise.targets.spark.session import is_connect, is_local

bundle, source, output, ship = sys.argv[1:]
texts = [json.loads(line)["text"] for line in open(source)]
os.environ["PYSPARK_PYTHON"] = sys.executable
spark = SparkSession.builder.remote("local[2]").config("spark.ui.enabled", "false").getOrCreate()
assert is_connect(spark) and is_local(spark)
frame = spark.createDataFrame([(text,) for text in texts], "text string")
udf = likewise.spark.udf(spark, bundle, "string", ship=ship == "ship")
told = {"udf": {row[0]: row[1] for row in frame.select("text", udf("text")).collect()}}
scored = likewise.spark.score_frame(frame, bundle, ship=ship == "ship")
told["frame"] = {row["text"]: row["predictions"] for row in scored.collect()}
options = ScoreOptions(runner="spark", window=32)
told["report"] = likewise.score(bundle, source, output, options=options).as_dict()
print(json.dumps(told))
spark.stop()
"""


@pytest.mark.parametrize("ship", ["ship", "keep"])
def test_answers_through_spark_connect(text_model: api.Bundle, tmp_path: Path, ship: str) -> None:
    texts = [f"movie {n} is {'good ' * (n % 9)}" for n in range(200)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    env |= {"LIKEWISE_CACHE_HOME": str(tmp_path / "cache"), "SPARK_LOCAL_IP": "127.0.0.1"}
    command = [sys.executable, "-c", CODE, str(text_model.path), str(source), str(tmp_path / "out"), ship]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    expected = dict(zip(texts, predicted(text_model, texts), strict=True))
    assert told["udf"] == told["frame"] == expected
    assert told["report"]["rows_ok"] == len(texts)
    api.score(text_model, source, tmp_path / "local", options=ScoreOptions(window=32))
    rows = [(tmp_path / name / "part-00000.jsonl").read_bytes() for name in ("out", "local")]
    assert rows[0] == rows[1]
    assert (tmp_path / "cache" / "spark").exists() == (ship == "ship")
