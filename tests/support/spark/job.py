"""Drivers on a standalone cluster in separate processes: one that executes requests, and one that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.support.spark.cluster import Cluster

DRIVER = Path(__file__).with_name("driver.py")
SPECULATION = {"spark.speculation": "true", "spark.speculation.quantile": "0.3", "spark.speculation.multiplier": "1.2"}
Value = TypeVar("Value")


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


class ClusterJob:
    """`likewise score … --runner spark` on the cluster, with speculation, which can be watched and killed."""

    def __init__(self, cluster: Cluster, model: Path, source: Path, output: Path, options: Sequence[str] = ()) -> None:
        self.output = output
        self._scored = output.parent / f".{output.name}.likewise-staging" / "scored"
        command = [*cluster.hosts[0].inside, sys.executable, "-m", "likewise.cli", "score", str(model), str(source)]
        command += ["-o", str(output), "--json", "--runner", "spark", "--master", cluster.master, *options]
        for name, value in (SPECULATION | cluster.conf).items():
            command += ["--conf", f"{name}={value}"]
        self._log = output.parent / "driver.log"
        self._out = output.parent / "driver.out"
        with self._out.open("wb") as out, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=cluster.driver_env, stdout=out, stderr=log, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()

    @property
    def chunks(self) -> dict[str, int]:
        """The names of the results so far, each with its file's inode number."""
        inodes = {}
        for path in self._scored.glob("*/*"):
            with suppress(FileNotFoundError):  # the job has just finished
                if path.suffix != ".tmp":
                    inodes[f"{path.parent.name}/{path.name}"] = path.stat().st_ino
        return inodes

    def until(self, condition: Callable[[], Value]) -> Value:
        """The value of `condition` when it becomes true; the job must not exit before."""
        while not (value := condition()):
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-3000:]
            time.sleep(0.01)
        return value

    def reach(self, count: int) -> None:
        """Wait until `count` chunks are scored."""
        self.until(lambda: len(self.chunks) >= count)

    def kill(self) -> None:
        """Kill the driver and its JVM; executors exit when they notice."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    def report(self) -> dict[str, Any]:
        """Wait for the job; the report that it printed."""
        assert self._process.wait(240) == 0, self._log.read_text(errors="replace")[-3000:]
        report: dict[str, Any] = json.loads(self._out.read_bytes())
        return report
