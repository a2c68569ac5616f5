"""A Ray cluster of its own: ports, folder and processes that nobody else's are, stopped at the end."""

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.spark.cluster import children, command_of

PATIENCE = 120.0  # seconds
SERVE = "import ray, sys; from ray import serve; ray.init(address=sys.argv[1], logging_level='ERROR'); "
SERVE += "serve.start(http_options={'host': '127.0.0.1', 'port': int(sys.argv[2])})"
WATCH = """
import json, sys, ray
from ray import serve
from ray.experimental.internal_kv import _internal_kv_list
ray.init(address=sys.argv[1], namespace="likewise", log_to_driver=False, logging_level="ERROR")
for _ in sys.stdin:
    notes = [key.decode() for key in _internal_kv_list("app/", namespace="likewise")]
    print(json.dumps([*serve.status().applications, *notes]), flush=True)
"""
REPLICA = "ray::ServeReplica:"
LEAVING_S = 10.0  # for a process that Serve has told to end


def free_ports(count: int) -> list[int]:
    """Below those that Ray's workers take (10002 to 19999) there are none of the system's own; above there are."""
    with_sockets = [socket.socket() for _ in range(count)]
    for each in with_sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in with_sockets]
    for each in with_sockets:
        each.close()
    return ports


@dataclass
class RayCluster:
    """A head node. address: of Ray; client: `HOST:PORT` of Ray's client server; http: port of Serve's proxy."""

    folder: Path
    python: Path
    cpus: int
    more_env: Mapping[str, str]
    address: str = ""
    client: str = ""
    http: int = 0
    head: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """Of every process of Ray's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
        own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
        own["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"  # its own 5 are for hosts that do nothing else
        return {**kept, **own, "LIKEWISE_CACHE_HOME": str(self.folder / "nodes-cache"), **self.more_env}

    @property
    def caller_env(self) -> dict[str, str]:
        """Of a process that asks it."""
        names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "LIKEWISE_CACHE_HOME")
        return {"RAY_ADDRESS": self.address, **{name: self.env[name] for name in names if name in self.env}}

    @property
    def url(self) -> str:
        """Of Serve's proxy."""
        return f"http://127.0.0.1:{self.http}"

    def start(self) -> None:
        """Head node and Serve; ready when this returns."""
        gcs, client, dashboard, agent, self.http = free_ports(5)
        ports = [f"--port={gcs}", f"--ray-client-server-port={client}", f"--dashboard-port={dashboard}"]
        ports.append(f"--dashboard-agent-listen-port={agent}")
        command = [str(self.python), "-m", "ray.scripts.scripts", "start", "--head", "--block", *ports]
        command += [f"--num-cpus={self.cpus}", "--object-store-memory=100000000", "--include-dashboard=false"]
        command += [f"--temp-dir={self.folder / 'ray'}", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        with (self.folder / "head.log").open("wb") as log:
            self.head = subprocess.Popen(command, stdout=log, stderr=log, env=self.env, start_new_session=True)
        self.address, self.client = f"127.0.0.1:{gcs}", f"127.0.0.1:{client}"
        self._await((gcs, client))
        serve = [str(self.python), "-c", SERVE, self.address, str(self.http)]
        done = subprocess.run(serve, env=self.env, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr[-3000:]

    def stop(self) -> None:
        """Every process below the head."""
        if self.head is None:
            return
        for pid in (*children(self.head.pid), self.head.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.head.wait()

    @contextmanager
    def watched(self) -> Iterator[Callable[[], list[str]]]:
        """A call that tells applications, what is noted of deployments, and replicas; one process answers them all."""
        command, pipe = [str(self.python), "-c", WATCH, self.address], subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=self.env) as watcher:

            def left() -> list[str]:
                assert watcher.stdin is not None
                assert watcher.stdout is not None
                watcher.stdin.write("\n")
                watcher.stdin.flush()
                found: list[str] = json.loads(watcher.stdout.readline())
                return found or self._replicas()

            yield left

    def _replicas(self) -> list[str]:
        """Commands of the replicas' processes, where no application is left that they could belong to."""
        assert self.head is not None
        deadline = time.monotonic() + LEAVING_S
        while True:
            running = [each for pid in children(self.head.pid) if (each := command_of(pid)).startswith(REPLICA)]
            if not running or time.monotonic() > deadline:
                return running
            time.sleep(0.1)

    def _await(self, ports: tuple[int, ...]) -> None:
        deadline = time.monotonic() + PATIENCE
        for port in ports:
            while True:
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1.0).close()
                    break
                assert self.head is not None
                assert self.head.poll() is None, (self.folder / "head.log").read_text()[-3000:]
                assert time.monotonic() < deadline, (self.folder / "head.log").read_text()[-3000:]
                time.sleep(0.05)


def _started(cluster: RayCluster) -> None:
    """Ray gives a node 30 seconds to start, and nobody can give it more: on a busy machine it is started again."""
    for last in (False, False, True):
        try:
            cluster.start()
            return
        except (AssertionError, subprocess.TimeoutExpired):
            cluster.stop()
            if last:
                raise


@contextmanager
def ray_cluster(*, cpus: int = 4, python: Path | None = None, **more_env: str) -> Iterator[RayCluster]:
    """A cluster that is ready. cpus: as Ray counts them, whatever there are."""
    folder = Path(tempfile.mkdtemp(prefix="lwr-", dir="/tmp"))  # a socket's path is short
    made = RayCluster(folder, python or Path(sys.executable), cpus, more_env)
    try:
        _started(made)
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
