"""Spark Connect: no JVM in the driver's process, and the same results for the UDF, for frames and for jobs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.spark.bundles import predicted
from tests.support.spark.cluster import java_env

from likewise import api
from likewise.batch import ScoreOptions

pytest_plugins = ("tests.support.spark.fixtures",)
missing = [name for name in ("grpc_status", "zstandard") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.xdist_group("spark"),
    pytest.mark.usefixtures("java"),
    pytest.mark.skipif(bool(missing), reason=f"Spark Connect needs {missing}: pip install grpcio-status zstandard"),
]

# In one process, first without shipping anything to the workers, then with shipping.
CODE = """
import json, os, sys
from pathlib import Path
from pyspark.sql import SparkSession
import likewise, likewise.spark
from likewise.batch import ScoreOptions
from likewise.targets.spark.session import is_connect, is_local

bundle, source, folder, sent = sys.argv[1:]
texts = [json.loads(line)["text"] for line in open(source)]
os.environ["PYSPARK_PYTHON"] = sys.executable
spark = SparkSession.builder.remote("local[2]").config("spark.ui.enabled", "false").getOrCreate()
assert is_connect(spark) and is_local(spark)
frame = spark.createDataFrame([(text,) for text in texts], "text string")

def results(ship):
    udf = likewise.spark.udf(spark, bundle, "string", ship=ship)
    scored = likewise.spark.score_frame(frame, bundle, ship=ship)
    options = ScoreOptions(runner="spark", window=32)
    return {
        "udf": {row[0]: row[1] for row in frame.select("text", udf("text")).collect()},
        "frame": {row["text"]: row["predictions"] for row in scored.collect()},
        "report": likewise.score(bundle, source, f"{folder}/out-{ship}", options=options).as_dict(),
        "sent": Path(sent).exists(),
    }

print(json.dumps([results(False), results(True)]))
spark.stop()
"""


@pytest.mark.long
def test_results_through_spark_connect(text_model: api.Bundle, tmp_path: Path) -> None:
    texts = [f"movie {n} is {'good ' * (n % 9)}" for n in range(200)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    env |= {"LIKEWISE_CACHE_HOME": str(tmp_path / "cache")} | java_env(tmp_path)
    command = [sys.executable, "-c", CODE, str(text_model.path), str(source), str(tmp_path)]
    command.append(str(tmp_path / "cache" / "spark"))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = dict(zip(texts, predicted(text_model, texts), strict=True))
    api.score(text_model, source, tmp_path / "local", options=ScoreOptions(window=32))
    rows = (tmp_path / "local" / "part-00000.jsonl").read_bytes()
    for ship, result in zip((False, True), json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert result["udf"] == result["frame"] == expected
        assert result["report"]["rows_ok"] == len(texts)
        assert (tmp_path / f"out-{ship}" / "part-00000.jsonl").read_bytes() == rows
        assert result["sent"] == ship
