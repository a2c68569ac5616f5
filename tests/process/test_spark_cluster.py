"""A standalone cluster whose executors lack Likewise: the same results, whichever processes are killed during a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.batch.job_rows import check, local_rows
from tests.support.processes import children, command_of
from tests.support.spark.bundles import predicted
from tests.support.spark.cluster import Cluster, below, kill
from tests.support.spark.job import ClusterJob, driver_request, run_driver

from likewise import api

pytest_plugins = ("tests.support.spark.fixtures",)
pytestmark = [pytest.mark.xdist_group("spark")]
ROWS, WINDOW = 1600, 64
CODE_ROWS = 400
Victims = Callable[[Cluster], list[int]]
TEXTS = [f"movie {n} is {'good ' * (n % 9)}" for n in range(300)]


@pytest.mark.long
def test_udf_of_a_compiled_model_works_without_likewise_on_the_executors(
    spark_cluster: Cluster, text_model: api.Bundle, tmp_path: Path
) -> None:
    [found] = run_driver(spark_cluster, tmp_path, driver_request(text_model.path, TEXTS))
    assert found["predictions"] == dict(zip(TEXTS, predicted(text_model, TEXTS), strict=True))
    check_workers(found, spark_cluster)


def test_python_model_works_without_likewise_and_network(
    spark_cluster: Cluster, code_model: api.Bundle, tmp_path: Path
) -> None:
    rows = local_rows(tmp_path, code_model, "poison", CODE_ROWS, WINDOW)
    output = tmp_path / "out"
    [found] = run_driver(spark_cluster, tmp_path, driver_request(code_model.path, TEXTS, rows.source, output))
    assert found["predictions"] == {text: text.upper() for text in TEXTS}
    check_workers(found, spark_cluster)
    check(found["report"], output, rows, CODE_ROWS)
    assert {row["code"] for row in rows.quarantine} == {"ROW_REFUSED", "MODEL_RAISED"}


def check_workers(found: Mapping[str, Any], cluster: Cluster) -> None:
    """The workers ran the cluster's Python, with Likewise only from the archive that was sent."""
    cache = str(cluster.folder / "executors-cache")
    assert found["workers"]
    for python, package in found["workers"]:
        assert python == str(cluster.python)
        assert package == "none" or package.startswith(cache)


def executors(cluster: Cluster) -> list[int]:
    return below(cluster, ["CoarseGrainedExecutorBackend"])


def python_workers(cluster: Cluster) -> list[int]:
    """The processes that run the tasks: children of PySpark's daemon."""
    daemons = below(cluster, ["pyspark.daemon"])
    forked = [pid for daemon in daemons for pid in children(daemon)]
    return forked or [pid for pid in daemons if "pyspark.worker" in command_of(pid)]


# for each driver: which process is killed soon after its start, and the fraction of rows at which the driver is killed
ONCE = [(executors, 0.5)]
EVERYWHERE = [(None, 0.1), (python_workers, 0.5), (executors, 0.9)]


@pytest.mark.parametrize("kills", [ONCE, pytest.param(EVERYWHERE, marks=pytest.mark.long)], ids=["once", "everywhere"])
def test_job_resumes_after_kills_at_any_point(
    spark_cluster: Cluster, text_model: api.Bundle, tmp_path: Path, kills: Sequence[tuple[Victims | None, float]]
) -> None:
    """Each driver is killed, after one of its executors or Python workers was; the last one only loses a worker."""
    rows = local_rows(tmp_path, text_model, "no poison", ROWS, WINDOW)
    done: set[str] = set()

    def start(find: Victims | None) -> ClusterJob:
        job = ClusterJob(spark_cluster, text_model.path, rows.source, tmp_path / "out", ["--window", str(WINDOW)])
        if find is not None:
            kill(job.until(lambda: find(spark_cluster))[0])
        return job

    for find, fraction in kills:
        with start(find) as job:
            job.reach(round(fraction * ROWS / WINDOW))
            job.kill()
        assert not job.output.exists()
        assert done <= job.chunks
        done = job.chunks
    with start(python_workers) as job:
        check(job.report(), job.output, rows, ROWS)
