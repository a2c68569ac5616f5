"""A Ray cluster on two hosts: network namespaces with a link between them, and the loss of one host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.hosts import Host, two_hosts
from tests.support.processes import descendants
from tests.support.ray.deployments import versioned

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.long, pytest.mark.timeout(1200)]
ADDRESSES = ("198.18.79.1", "198.18.79.2")  # RFC 2544: for test networks
GCS, HTTP = 6379, 8000  # each host has its own ports
PATIENCE = 240.0  # seconds; it takes some time until Ray considers a node lost
SLOW_HOSTS = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}  # Ray's default of 5 is too short for a busy host
SERVE = "import ray; from ray import serve; ray.init(address='auto', logging_level='ERROR'); "
SERVE += f"serve.start(http_options={{'host': '0.0.0.0', 'port': {HTTP}, 'location': 'EveryNode'}})"
POST = """
import json, sys, httpx
responses = []
for url in sys.argv[1:]:
    try:
        response = httpx.post(url, json={"inputs": ["a"]}, timeout=60)
        responses.append([response.status_code, response.text])
    except httpx.HTTPError as error:
        responses.append([0, repr(error)])
print(json.dumps(responses))
"""
OPTIONS = {
    "num_replicas": "2",
    "max_replicas_per_node": "1",
    "ray_actor_options": '{"num_cpus": 0.2}',
    "health_check_period_s": "1",
    "graceful_shutdown_wait_loop_s": "0.2",
}
RESPONSE = '{"predictions":["1:A"]}'


@dataclass
class Nodes:
    """The head on the first host, a worker node on the second; commands run on the first."""

    folder: Path
    hosts: list[Host]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def env(self, host: Host) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
        homes = {"LIKEWISE_DATA_HOME": "data", "LIKEWISE_CACHE_HOME": f"cache-{host.address}"}
        own |= {name: str(self.folder / home) for name, home in homes.items()}
        return {**inherited, **own, **SLOW_HOSTS, "RAY_ADDRESS": f"{ADDRESSES[0]}:{GCS}"}

    def start(self, number: int) -> None:
        """Start the node of a host; the first host's is the head node."""
        host = self.hosts[number]
        command = [*host.inside, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=2"]
        command += [f"--node-ip-address={host.address}", "--object-store-memory=100000000", "--disable-usage-stats"]
        if number == 0:
            command += ["--head", f"--port={GCS}", f"--temp-dir={self.folder / 'ray'}", "--include-dashboard=false"]
        else:
            command += [f"--address={ADDRESSES[0]}:{GCS}"]
        with (self.folder / f"node-{number}.log").open("ab") as log:
            env = {name: value for name, value in self.env(host).items() if name != "RAY_ADDRESS"}
            node = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
        self.running[host.address] = node

    def join(self) -> None:
        """Start the second host's node, repeatedly if necessary: on a busy host it may exceed Ray's 30 seconds."""
        code = "import ray; ray.init(address='auto', logging_level='ERROR'); "
        code += "raise SystemExit(sum(node['Alive'] for node in ray.nodes()) != 2)"
        deadline = time.monotonic() + PATIENCE
        self.start(1)
        while self.run("-c", code).returncode:
            assert time.monotonic() < deadline, (self.folder / "node-1.log").read_text()[-3000:]
            if self.running[ADDRESSES[1]].poll() is not None:
                self.start(1)

    def kill(self, number: int) -> None:
        """Kill all processes of the host at once, as in a power failure."""
        node = self.running.pop(self.hosts[number].address)
        for pid in (*descendants(node.pid), node.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        host = self.hosts[0]
        command = [*host.inside, sys.executable, *words]
        return subprocess.run(command, env=self.env(host), capture_output=True, text=True, timeout=PATIENCE)

    def await_run(self, *words: str) -> str:
        """Run the command until it succeeds; its output."""
        deadline = time.monotonic() + PATIENCE
        while (done := self.run(*words)).returncode:
            assert time.monotonic() < deadline, done.stderr[-2000:] + (self.folder / "node-0.log").read_text()[-2000:]
            if self.running[ADDRESSES[0]].poll() is not None:  # its start timed out, as in `join`
                self.start(0)
        return done.stdout

    def likewise(self, *words: str) -> dict[str, Any]:
        done = self.run("-m", "likewise.cli", *words, "--json")
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(json.loads(done.stdout))

    def running_on(self) -> tuple[str, list[str]]:
        """The deployment's state, and the hosts of the running replicas."""
        status = self.likewise("status", "two")["status"]
        replicas = status["details"]["replicas"]
        return status["state"], sorted(each["node"] for each in replicas if each["state"] == "RUNNING")

    def await_running_on(self, *addresses: str, state: str = "ready") -> None:
        deadline = time.monotonic() + PATIENCE
        while (current := self.running_on()) != (state, list(addresses)):
            assert time.monotonic() < deadline, current

    def post(self, *addresses: str) -> list[list[Any]]:
        """The status and body of the response of each host's proxy."""
        urls = [f"http://{address}:{HTTP}/two" for address in addresses]
        return list(json.loads(self.run("-c", POST, *urls).stdout))

    def replicas_with_requests(self) -> set[str]:
        """The start times of the replicas that have handled inference requests, from their metrics."""
        start_times = set()
        code = "import sys, httpx; print(httpx.get(sys.argv[1]).text)"
        for address in ADDRESSES:
            text = self.run("-c", code, f"http://{address}:{HTTP}/two/metrics").stdout
            lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
            if any("requests_total" in name and "invocations" in name for name in lines):
                start_times.add(lines["process_start_time_seconds"])
        return start_times


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ExitStack() as stop:
        hosts = stop.enter_context(two_hosts("lr", ADDRESSES))
        folder = Path(tempfile.mkdtemp(prefix="lwn-", dir="/tmp"))  # the length of a socket's path is limited
        stop.callback(shutil.rmtree, folder, ignore_errors=True)
        running = Nodes(folder, hosts)
        stop.callback(lambda: [running.kill(number) for number in (1, 0) if hosts[number].address in running.running])
        running.start(0)
        running.await_run("-c", SERVE)
        running.join()
        yield running


def test_deployment_survives_the_loss_of_a_node(nodes: Nodes) -> None:
    model = versioned(nodes.folder, 1)
    options = [word for key, value in OPTIONS.items() for word in ("-C", f"{key}={value}")]
    nodes.likewise("deploy", str(model.folder), "--to", "ray", "--name", "two", "--trust", *options)
    nodes.await_running_on(*ADDRESSES)
    for _ in range(3):
        assert nodes.post(*ADDRESSES) == [[200, RESPONSE]] * 2
    assert len(nodes.replicas_with_requests()) == 2  # each proxy prefers the replica on its node
    shutil.rmtree(model.folder)  # so restarted replicas must use the cluster's store
    nodes.kill(1)
    nodes.await_running_on(ADDRESSES[0], state="degraded")
    for _ in range(10):
        assert nodes.post(ADDRESSES[0]) == [[200, RESPONSE]]
    nodes.join()
    nodes.await_running_on(*ADDRESSES)
    assert nodes.post(ADDRESSES[0]) == [[200, RESPONSE]]
    nodes.likewise("delete", "two")
