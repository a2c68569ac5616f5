"""A standalone cluster on two hosts: network namespaces with a link between them and no route to the outside."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.support.hosts import Host, two_hosts
from tests.support.spark.bundles import predicted
from tests.support.spark.cluster import Cluster, cluster
from tests.support.spark.job import ClusterJob, driver_request, run_driver

from likewise import api
from likewise.batch import ScoreOptions

pytest_plugins = ("tests.support.spark.fixtures",)
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("spark")]
ADDRESSES = ("198.18.77.1", "198.18.77.2")  # RFC 2544: for test networks
ROWS = 800
EVENTS = "events"


@pytest.fixture(scope="module")
def hosts(java: None) -> Iterator[list[Host]]:
    with two_hosts("lw", ADDRESSES) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def two_host_cluster(hosts: Sequence[Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The master, the driver and one worker on the first host, another worker on the second."""
    folder = tmp_path_factory.mktemp("hosts")
    (folder / EVENTS).mkdir()
    with cluster(folder, hosts) as ready:
        ready.more_conf = {
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": f"file://{folder / EVENTS}",
            "spark.eventLog.compress": "false",
            "spark.speculation": "false",  # a host's first task is slow, so the other host would repeat it
            "spark.cores.max": "2",
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",  # no task before both workers have registered
            "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
        }
        yield ready


def hosts_of_tasks(cluster: Cluster) -> set[str]:
    """The hosts of successful tasks, from the event log, which is cleared afterwards."""
    hosts = set()
    for log in (cluster.folder / EVENTS).rglob("events_*"):  # hidden checksum files are next to them
        for event in filter(None, log.read_text().splitlines()):
            fields = json.loads(event)
            if fields["Event"] == "SparkListenerTaskEnd" and fields["Task End Reason"]["Reason"] == "Success":
                hosts.add(fields["Task Info"]["Host"])
    shutil.rmtree(cluster.folder / EVENTS)
    (cluster.folder / EVENTS).mkdir()
    return hosts


def test_hosts_have_no_route_to_the_outside(hosts: Sequence[Host]) -> None:
    for host in hosts:
        done = subprocess.run([*host.inside, "ip", "route", "get", "192.0.2.1"], capture_output=True, text=True)
        assert "unreachable" in done.stderr


def test_the_udf_runs_on_both_hosts(two_host_cluster: Cluster, text_model: api.Bundle, tmp_path: Path) -> None:
    texts = [f"movie {n} is {'good ' * (n % 9)}" for n in range(300)]
    (result,) = run_driver(two_host_cluster, tmp_path, driver_request(text_model.path, texts))
    assert result["predictions"] == dict(zip(texts, predicted(text_model, texts), strict=True))
    assert hosts_of_tasks(two_host_cluster) == set(ADDRESSES)


def test_a_job_runs_on_both_hosts(two_host_cluster: Cluster, text_model: api.Bundle, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    with source.open("wb") as stream:
        for row in range(ROWS):
            line = json.dumps({"id": row, "text": f"{'word ' * (row % 40)} number {row}"}).encode()
            stream.write((b"broken \xff" if row % 100 == 7 else line) + b"\n")
    with ClusterJob(two_host_cluster, text_model.path, source, tmp_path / "out", ["--window", "64"]) as job:
        report = job.report()
    local = api.score(text_model, source, tmp_path / "local", options=ScoreOptions(window=64))
    assert (report["rows_in"], report["rows_ok"]) == (local.rows_in, local.rows_ok) == (ROWS, ROWS - ROWS // 100)
    parts = [(tmp_path / name / "part-00000.jsonl").read_bytes() for name in ("out", "local")]
    assert parts[0] == parts[1]
    bad = [pq.read_table(tmp_path / name / "_quarantine.parquet").to_pylist() for name in ("out", "local")]
    assert bad[0] == bad[1]
    assert hosts_of_tasks(two_host_cluster) == set(ADDRESSES)
