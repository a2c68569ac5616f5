"""Spark sessions: the active one or a new one, and their requirements."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from likewise.core.cores import thread_environment
from likewise.core.errors import EngineUnavailable, MissingExtra, WrongUsage
from likewise.core.extras import need

JAVA = 17  # the minimum version for Spark 4
LOCAL = "local[*]"
TIME_ZONE = "spark.sql.session.timeZone"
_LOCAL = re.compile(r"local(\[|$)")
DEFAULTS = {"spark.ui.showConsoleProgress": "false", "spark.sql.execution.arrow.pyspark.enabled": "true"}


def session(master: str | None, conf: Mapping[str, str]) -> tuple[Any, bool]:
    """A Spark session, and whether this call created it (the caller must then stop it).

    master: `spark://…`, `local[2]`, `sc://…` for Spark Connect, …; None uses the active session, else creates one on
    `local[*]`. conf: Spark's configuration for a new session.
    Raises MissingExtra (no pyspark, no Java), WrongUsage (another session is active), EngineUnavailable (it does not
    start).
    """
    sql = need("pyspark.sql", extra="spark")
    if (active := _active(sql)) is not None:
        _refuse_other(active, master)
        return active, False
    builder = sql.SparkSession.builder.appName("likewise")
    for name, value in {**DEFAULTS, **conf}.items():
        builder = builder.config(name, value)
    if (master or "").startswith("sc://"):
        return _start(builder.remote(master), str(master)), True
    require_java()
    chosen = master or conf.get("spark.master") or LOCAL
    with _workers_environment(conf, chosen):
        return _start(builder.master(chosen), chosen), True


@contextmanager
def _workers_environment(conf: Mapping[str, str], master: str) -> Iterator[None]:
    """The environment in which the session starts: with the workers' Python and, for local workers, their threads."""
    before = dict(os.environ)
    cores = conf.get("spark.task.cpus", "1")
    changed = thread_environment(before, int(cores) if cores.isdecimal() else 1)
    # local workers use this Python; otherwise Spark would run the first `python3` on the PATH
    local = sys.executable if _LOCAL.match(master) else None
    if chosen := conf.get("spark.pyspark.python") or before.get("PYSPARK_PYTHON") or local:
        changed["PYSPARK_PYTHON"] = chosen
    os.environ.update(changed)
    try:
        yield
    finally:
        for name in changed.keys() - before.keys():
            os.environ.pop(name, None)
        os.environ.update(before)


def _active(sql: Any) -> Any:
    """This thread's session, else the process's; None if there is neither."""
    try:
        return sql.SparkSession.active()
    except need("pyspark.errors", extra="spark").PySparkException:  # the only way to detect that there is no session
        return None


def _start(builder: Any, master: str) -> Any:
    try:
        return builder.getOrCreate()
    except Exception as error:  # any error of the JVM or the connection
        raise EngineUnavailable(
            f"Spark does not start on {master}: {type(error).__name__}: {str(error)[:500]}",
            remedy="check --master, and that the cluster is running and reachable from this machine",
        ) from error


def _refuse_other(active: Any, master: str | None) -> None:
    if master is None or is_connect(active):
        return
    running = active.sparkContext.master
    if running != master:
        raise WrongUsage(
            f"a Spark session on {running} is active in this process, but {master} was requested",
            remedy="omit the master to use the active session, or stop that session first",
        )


def is_connect(spark: Any) -> bool:
    """Whether this is a Spark Connect session."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def is_local(spark: Any) -> bool:
    """Whether its workers are local processes that share this machine's disk and Python."""
    if is_connect(spark):
        return "SPARK_LOCAL_REMOTE" in os.environ  # as `spark.remote("local[2]")` sets it
    return bool(_LOCAL.match(spark.sparkContext.master))


def slots(spark: Any) -> int:
    """The number of tasks that run at once, as reported by Spark; at least 1."""
    try:
        if not is_connect(spark):
            return max(1, int(spark.sparkContext.defaultParallelism))
        return max(1, int(spark.range(1 << 20).selectExpr("spark_partition_id() AS p").distinct().count()))
    except Exception:  # noqa: BLE001  a hint only
        return 1


def require_java() -> None:
    """MissingExtra unless a Java runtime that Spark supports is installed."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    remedy = f"install a Java runtime of version {JAVA} or newer (Debian: apt-get install openjdk-17-jre-headless)"
    if java is None or not Path(java).exists():
        problem = f"JAVA_HOME is {home}, which contains no Java" if home else "there is none on the PATH"
        raise MissingExtra(f"Spark needs Java, but {problem}", remedy=f"{remedy}, or set JAVA_HOME")
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    if done.returncode != 0 or version is None:
        raise MissingExtra(f"{java} -version does not report a version: {done.stderr[:200]}", remedy=remedy)
    if int(version[1]) < JAVA:
        raise MissingExtra(
            f"Spark needs Java {JAVA} or newer, but {java} is version {version[1]}",
            remedy=f"{remedy}, or set JAVA_HOME",
        )
