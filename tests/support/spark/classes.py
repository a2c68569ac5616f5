"""An archive of Spark's classes that a JVM maps into memory: with it, it starts in half the CPU time.

Source: "Class Data Sharing" of the Java virtual machine guide, dynamic archives (Java 13 or newer).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyspark
from tests.support.shared import CACHE, exclusive

# What most tests use: frames through Arrow and Python, reading and writing of files.
TYPICAL_WORKLOAD = """
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("OFF")
frame = spark.range(100).selectExpr("id", "cast(id as string) as text")
frame.mapInArrow(lambda batches: batches, frame.schema).write.parquet(sys.argv[1] + "/parquet")
frame.write.json(sys.argv[1] + "/json")
spark.read.parquet(sys.argv[1] + "/parquet").groupBy("text").count().collect()
gateway = spark.sparkContext._gateway
spark.stop()
gateway.shutdown()
gateway.proc.stdin.close()
gateway.proc.wait()
"""


def class_archive(options: str) -> Path:
    """The archive for the installed Java and Spark, created if missing; options: those of the JVMs that will use it.

    The file may be missing if Java could not create it: then a JVM with this option starts normally.
    """
    java, jars = Path(shutil.which("java") or "java").resolve(), Path(pyspark.__file__).parent / "jars"
    sources = " ".join(
        f"{path} {path.stat().st_mtime_ns}" for path in (java, jars)
    )  # a JVM rejects an archive of other sources
    archive = CACHE / f"spark-{hashlib.sha256(sources.encode()).hexdigest()[:12]}.jsa"
    with exclusive(CACHE / "spark.lock"):
        if not archive.exists():
            _create(archive, options)
    return archive


def _create(archive: Path, options: str) -> None:
    stage, work = archive.with_suffix(".new"), archive.with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    stage.unlink(missing_ok=True)
    recorded = f"{options} -XX:ArchiveClassesAtExit={stage} -Xlog:disable"
    own = {"JAVA_TOOL_OPTIONS": recorded, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    subprocess.run(
        [sys.executable, "-c", TYPICAL_WORKLOAD, work],
        env=os.environ | own,
        capture_output=True,
        timeout=300,
        check=True,
    )
    shutil.rmtree(work, ignore_errors=True)
    if stage.exists():
        stage.replace(archive)
