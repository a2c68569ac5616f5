"""A Ray cluster of one node, with its own ports, folder and processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import command_of, descendants, free_ports
from tests.support.waiting import until

START_S = 120.0
EXIT_S = 10.0  # for the process of a replica that Serve has stopped
REPLICA = "ray::ServeReplica:"
OBSERVER = """
import json, os, sys
output = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # for output of Ray's workers
import ray
from ray import serve
from ray.experimental.internal_kv import _internal_kv_list
ray.init(address=sys.argv[1], namespace="likewise", log_to_driver=False, logging_level="ERROR")
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
print("started", file=output, flush=True)
for _ in sys.stdin:
    records = [key.decode() for key in _internal_kv_list("app/", namespace="likewise")]
    print(json.dumps([*serve.status().applications, *records]), file=output, flush=True)
"""


@dataclass
class RayCluster:
    """A head node with Serve.

    address: Ray's address.  client: `HOST:PORT` of Ray's client server.  http: the port of Serve's proxy.  dashboard:
    its URL, if enabled.  python: the nodes' interpreter.  cpus: the number that Ray assumes on any machine.
    """

    folder: Path
    python: Path = Path(sys.executable)
    cpus: int = 4
    more_env: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    client: str = ""
    http: int = 0
    dashboard: str = ""
    head: subprocess.Popen[bytes] | None = None
    observer: subprocess.Popen[str] | None = None

    @property
    def env(self) -> dict[str, str]:
        """The environment of all Ray processes."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
        own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
        own["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"  # Ray's default of 5 is too short for a busy host
        return {**inherited, **own, "LIKEWISE_CACHE_HOME": str(self.folder / "nodes-cache"), **self.more_env}

    @property
    def caller_env(self) -> dict[str, str]:
        """The variables of a process that deploys to the cluster."""
        names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "LIKEWISE_CACHE_HOME")
        return {"RAY_ADDRESS": self.address, **{name: self.env[name] for name in names if name in self.env}}

    @property
    def url(self) -> str:
        """The URL of Serve's proxy."""
        return f"http://127.0.0.1:{self.http}"

    def start(self, *, dashboard: bool, serve: bool) -> None:
        """Start the head node, and Serve if requested; wait until they are ready."""
        gcs, client, dashboard_port, agent, self.http = free_ports(5)
        command = [str(self.python), "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--port={gcs}", f"--ray-client-server-port={client}", f"--temp-dir={self.folder / 'ray'}"]
        command += [f"--num-cpus={self.cpus}", "--object-store-memory=100000000", "--node-ip-address=127.0.0.1"]
        command += [f"--dashboard-port={dashboard_port}", f"--dashboard-agent-listen-port={agent}"]
        command += [f"--include-dashboard={str(dashboard).lower()}"]
        with (self.folder / "head.log").open("wb") as log:
            self.head = subprocess.Popen(command, stdout=log, stderr=log, env=self.env, start_new_session=True)
        self.address, self.client = f"127.0.0.1:{gcs}", f"127.0.0.1:{client}"
        until(lambda: self._listens(gcs) and self._listens(client), START_S)
        if dashboard:
            self.dashboard = f"http://127.0.0.1:{dashboard_port}"
            until(lambda: self._listens(dashboard_port), START_S)
        if serve:
            self.start_serve()

    def stop(self) -> None:
        """Kill all processes of the cluster."""
        if self.observer is not None:
            self.observer.kill()
            self.observer.communicate()
        if self.head is not None:
            for pid in (*descendants(self.head.pid), self.head.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.head.wait()

    def left(self) -> list[str]:
        """Serve's applications and the stored deployment records; if there are none, the replicas still running."""
        assert self.observer is not None
        assert self.observer.stdin is not None
        assert self.observer.stdout is not None
        self.observer.stdin.write("\n")
        self.observer.stdin.flush()
        names: list[str] = json.loads(self.observer.stdout.readline())
        return names or self._replicas()

    def start_serve(self) -> None:
        """Start Serve, in a process that `left` queries afterwards."""
        command = [str(self.python), "-c", OBSERVER, self.address, str(self.http)]
        with (self.folder / "observer.log").open("w") as log:
            self.observer = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=self.env
            )
        assert self.observer.stdout is not None
        started = self.observer.stdout.readline()
        assert started == "started\n", (self.folder / "observer.log").read_text()[-3000:]

    def _replicas(self) -> list[str]:
        """The commands of the replicas' processes that are still running after EXIT_S."""
        assert self.head is not None
        end = time.monotonic() + EXIT_S
        while True:
            commands = [command_of(pid) for pid in descendants(self.head.pid)]
            running = [each for each in commands if each.startswith(REPLICA)]
            if not running or time.monotonic() > end:
                return running
            time.sleep(0.05)

    def _listens(self, port: int) -> bool:
        assert self.head is not None
        assert self.head.poll() is None, (self.folder / "head.log").read_text()[-3000:]
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return True
        return False


@contextmanager
def started_cluster(
    *, cpus: int = 4, python: Path | None = None, dashboard: bool = False, serve: bool = True, **more_env: str
) -> Iterator[RayCluster]:
    """A running cluster, stopped at the end; more_env: additional variables of its processes."""
    folder = Path(tempfile.mkdtemp(prefix="lwr-", dir="/tmp"))  # the length of a socket's path is limited
    cluster = RayCluster(folder, python or Path(sys.executable), cpus, more_env)
    try:
        for last in (False, False, True):  # Ray gives a node 30 seconds to start, which a busy machine may exceed
            try:
                cluster.start(dashboard=dashboard, serve=serve)
                break
            except AssertionError:
                cluster.stop()
                if last:
                    raise
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def driver(cluster: RayCluster, code: str, *arguments: str) -> Iterator[None]:
    """A process of another user of the cluster: it prints a line when it is ready, and ends when its stdin does."""
    command = [sys.executable, "-c", code, cluster.address, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=cluster.env
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    assert process.returncode == 0
