"""A standalone cluster whose executors lack Likewise: the same results, whichever processes are killed during a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.batch.job_rows import Rows, check, local_rows
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


@dataclass
class Driver:
    """The output of one driver on the cluster for the compiled model and for the Python model."""

    compiled: Mapping[str, Any]
    code: Mapping[str, Any]
    job: Rows
    output: Path


@pytest.fixture(scope="module")
def driver(
    spark_cluster: Cluster,
    text_model: api.Bundle,
    code_model: api.Bundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Driver:
    folder = tmp_path_factory.mktemp("driver")
    rows = local_rows(folder, code_model, "poison", CODE_ROWS, WINDOW)
    output = folder / "out"
    compiled, code = run_driver(
        spark_cluster,
        folder,
        driver_request(text_model.path, TEXTS),
        driver_request(code_model.path, TEXTS, rows.source, output),
    )
    return Driver(compiled, code, rows, output)


def test_udf_works_without_likewise_on_the_executors(
    spark_cluster: Cluster, driver: Driver, text_model: api.Bundle
) -> None:
    assert driver.compiled["predictions"] == dict(zip(TEXTS, predicted(text_model, TEXTS), strict=True))
    cache = str(spark_cluster.folder / "executors-cache")
    assert driver.compiled["workers"]
    for python, package in driver.compiled["workers"]:
        assert python == str(spark_cluster.python)
        assert package == "none" or package.startswith(cache)


def test_python_model_works_without_likewise_and_network(spark_cluster: Cluster, driver: Driver) -> None:
    assert driver.code["predictions"] == {text: text.upper() for text in TEXTS}
    assert {python for python, _ in driver.code["workers"]} == {str(spark_cluster.python)}
    check(driver.code["report"], driver.output, driver.job, CODE_ROWS)
    assert {row["code"] for row in driver.job.quarantine} == {"ROW_REFUSED", "MODEL_RAISED"}


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
