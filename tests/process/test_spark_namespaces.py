"""A standalone cluster on two hosts: network namespaces with a cable between them and no way out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.process.spark_cluster import Cluster, ClusterJob, Host, answers_of_driver, cluster
from tests.process.spark_room import predicted

from likewise import api
from likewise.batch import ScoreOptions

pytest_plugins = ("tests.process.spark_fixtures",)
pytestmark = pytest.mark.slow
ADDRESSES = ("198.18.77.1", "198.18.77.2")  # RFC 2544: of test networks
ROWS = 800
EVENTS = "events"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def connected(stop: ExitStack) -> list[Host]:
    """Two namespaces with a pair of veth between them; CalledProcessError where the kernel or the user may not."""
    names = [f"likewise-{os.getpid()}-{number}" for number in range(2)]
    for name in names:
        ip("netns", "add", name)
        stop.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
    ends = [f"lw{os.getpid()}v{number}"[-15:] for number in range(2)]
    ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
    for name, end, address in zip(names, ends, ADDRESSES, strict=True):
        ip("-n", name, "addr", "add", f"{address}/30", "dev", end)
        ip("-n", name, "link", "set", end, "up")
        ip("-n", name, "link", "set", "lo", "up")
    return [Host(address, ("ip", "netns", "exec", name)) for name, address in zip(names, ADDRESSES, strict=True)]


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    if shutil.which("ip") is None:
        pytest.skip("no `ip` here (Debian: apt-get install iproute2), so there are no two hosts for Spark")
    with ExitStack() as stop:
        try:
            made = connected(stop)
            subprocess.run([*made[0].inside, "true"], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here, so there are no two hosts for Spark: {error.stderr.strip()}")
        yield made


@pytest.fixture(scope="module")
def made(hosts: Sequence[Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The master, the driver and one worker on the first host, another worker on the second."""
    folder = tmp_path_factory.mktemp("hosts")
    (folder / EVENTS).mkdir()
    with cluster(folder, hosts) as ready:
        ready.more_conf = {
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": f"file://{folder / EVENTS}",
            "spark.eventLog.compress": "false",
            "spark.speculation": "false",  # a host's first task is slow, and the other host would overtake it
            "spark.cores.max": "2",
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",  # of these: no task before both workers are there
            "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
        }
        yield ready


def hosts_of_tasks(made: Cluster) -> set[str]:
    """Where tasks ended well, by the log of events; what is read is gone afterwards."""
    found = set()
    for log in (made.folder / EVENTS).rglob("events_*"):  # beside them stand checksums, hidden
        for event in filter(None, log.read_text().splitlines()):
            told = json.loads(event)
            if told["Event"] == "SparkListenerTaskEnd" and told["Task End Reason"]["Reason"] == "Success":
                found.add(told["Task Info"]["Host"])
    shutil.rmtree(made.folder / EVENTS)
    (made.folder / EVENTS).mkdir()
    return found


def test_there_is_no_way_out(hosts: Sequence[Host]) -> None:
    for host in hosts:
        done = subprocess.run([*host.inside, "ip", "route", "get", "192.0.2.1"], capture_output=True, text=True)
        assert "unreachable" in done.stderr


def test_the_udf_runs_on_both_hosts(made: Cluster, text_model: api.Bundle, tmp_path: Path) -> None:
    texts = [f"movie {n} is {'good ' * (n % 9)}" for n in range(300)]
    told = answers_of_driver(made, text_model.path, texts, tmp_path)
    assert told["answers"] == dict(zip(texts, predicted(text_model, texts), strict=True))
    assert hosts_of_tasks(made) == set(ADDRESSES)


def test_a_job_runs_on_both_hosts(made: Cluster, text_model: api.Bundle, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    with source.open("wb") as stream:
        for row in range(ROWS):
            line = json.dumps({"id": row, "text": f"{'word ' * (row % 40)} number {row}"}).encode()
            stream.write((b"broken \xff" if row % 100 == 7 else line) + b"\n")
    with ClusterJob(made, text_model.path, source, tmp_path / "out", ["--window", "64"]) as job:
        report = job.report()
    local = api.score(text_model, source, tmp_path / "local", options=ScoreOptions(window=64))
    assert (report["rows_in"], report["rows_ok"]) == (local.rows_in, local.rows_ok) == (ROWS, ROWS - ROWS // 100)
    parts = [(tmp_path / name / "part-00000.jsonl").read_bytes() for name in ("out", "local")]
    assert parts[0] == parts[1]
    bad = [pq.read_table(tmp_path / name / "_quarantine.parquet").to_pylist() for name in ("out", "local")]
    assert bad[0] == bad[1]
    assert hosts_of_tasks(made) == set(ADDRESSES)
