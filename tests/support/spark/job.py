"""Drivers on a standalone cluster in separate processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.batch.running_job import RunningJob
from tests.support.spark.cluster import Cluster

DRIVER = Path(__file__).with_name("driver.py")
SPECULATION = {"spark.speculation": "true", "spark.speculation.quantile": "0.3", "spark.speculation.multiplier": "1.2"}


def driver_request(bundle: Path, texts: Sequence[str], *job: Path) -> dict[str, Any]:
    """A request for `run_driver`; job: input and output of a job in the same session."""
    return {"bundle": str(bundle), "texts": list(texts), "job": [str(path) for path in job] or None}


def run_driver(cluster: Cluster, folder: Path, *requests: Mapping[str, Any]) -> list[Any]:
    """The result of each request, from one `driver.py` on the cluster; its files are in `folder`."""
    (folder / "conf").write_text(json.dumps(cluster.conf))
    (folder / "requests").write_text(json.dumps(requests))
    command = [*cluster.hosts[0].inside, sys.executable, str(DRIVER), cluster.master]
    command += [str(folder / "conf"), str(folder / "requests")]
    done = subprocess.run(command, env=cluster.driver_env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    results: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return results


class ClusterJob(RunningJob):
    """`likewise score … --runner spark` on the cluster, with speculation."""

    def __init__(self, cluster: Cluster, model: Path, source: Path, output: Path, options: Sequence[str] = ()) -> None:
        spark = ["--runner", "spark", "--master", cluster.master, *options]
        for name, value in (SPECULATION | cluster.conf).items():
            spark += ["--conf", f"{name}={value}"]
        super().__init__(model, source, output, spark, cluster.driver_env, cluster.hosts[0].inside)
