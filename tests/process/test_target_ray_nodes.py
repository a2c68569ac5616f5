"""A Ray cluster on two hosts: network namespaces with a cable between them, and one of the hosts lost."""

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
ADDRESSES = ("198.18.79.1", "198.18.79.2")  # RFC 2544: of test networks
GCS, HTTP = 6379, 8000  # each host has all ports for itself
PATIENCE = 240.0  # seconds; Ray looks for some time before it calls a node lost
SLOW_HOSTS = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}  # Ray's own 5 are for hosts that do nothing else
SERVE = "import ray; from ray import serve; ray.init(address='auto', logging_level='ERROR'); "
SERVE += f"serve.start(http_options={{'host': '0.0.0.0', 'port': {HTTP}, 'location': 'EveryNode'}})"
ASK = """
import json, sys, httpx
told = []
for url in sys.argv[1:]:
    try:
        said = httpx.post(url, json={"inputs": ["a"]}, timeout=60)
        told.append([said.status_code, said.text])
    except httpx.HTTPError as error:
        told.append([0, repr(error)])
print(json.dumps(told))
"""
OPTIONS = {
    "num_replicas": "2",
    "max_replicas_per_node": "1",
    "ray_actor_options": '{"num_cpus": 0.2}',
    "health_check_period_s": "1",
    "graceful_shutdown_wait_loop_s": "0.2",
}
ANSWER = '{"predictions":["1:A"]}'


@dataclass
class Nodes:
    """The head on the first host, a worker node on the second; commands run on the first."""

    folder: Path
    hosts: list[Host]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def env(self, host: Host) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
        homes = {"LIKEWISE_DATA_HOME": "data", "LIKEWISE_CACHE_HOME": f"cache-{host.address}"}
        own |= {name: str(self.folder / home) for name, home in homes.items()}
        return {**kept, **own, **SLOW_HOSTS, "RAY_ADDRESS": f"{ADDRESSES[0]}:{GCS}"}

    def start(self, number: int) -> None:
        """The node of a host: of the first, the head."""
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
        """Start the second host's node until it is there: Ray gives a node half a minute, busy as its host may be."""
        code = "import ray; ray.init(address='auto', logging_level='ERROR'); "
        code += "raise SystemExit(sum(node['Alive'] for node in ray.nodes()) != 2)"
        deadline = time.monotonic() + PATIENCE
        self.start(1)
        while self.run("-c", code).returncode:
            assert time.monotonic() < deadline, (self.folder / "node-1.log").read_text()[-3000:]
            if self.running[ADDRESSES[1]].poll() is not None:
                self.start(1)

    def kill(self, number: int) -> None:
        """Every process of the host at once, as when its power goes."""
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
        """Until it ends well; what it says."""
        deadline = time.monotonic() + PATIENCE
        while (done := self.run(*words)).returncode:
            assert time.monotonic() < deadline, done.stderr[-2000:] + (self.folder / "node-0.log").read_text()[-2000:]
            if self.running[ADDRESSES[0]].poll() is not None:  # it had half a minute to start, as in `join`
                self.start(0)
        return done.stdout

    def likewise(self, *words: str) -> dict[str, Any]:
        done = self.run("-m", "likewise.cli", *words, "--json")
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(json.loads(done.stdout))

    def running_on(self) -> tuple[str, list[str]]:
        """The deployment's state, and the hosts of the replicas that run."""
        status = self.likewise("status", "two")["status"]
        told = status["details"]["replicas"]
        return status["state"], sorted(each["node"] for each in told if each["state"] == "RUNNING")

    def await_running_on(self, *addresses: str, state: str = "ready") -> None:
        deadline = time.monotonic() + PATIENCE
        while (found := self.running_on()) != (state, list(addresses)):
            assert time.monotonic() < deadline, found

    def ask(self, *addresses: str) -> list[list[Any]]:
        """Status and body of what the proxy of each host answers."""
        urls = [f"http://{address}:{HTTP}/two" for address in addresses]
        return list(json.loads(self.run("-c", ASK, *urls).stdout))

    def processes_that_answered(self) -> set[str]:
        """Starts of the replicas that have answered an inference, by what each tells of itself."""
        found = set()
        code = "import sys, httpx; print(httpx.get(sys.argv[1]).text)"
        for address in ADDRESSES:
            text = self.run("-c", code, f"http://{address}:{HTTP}/two/metrics").stdout
            lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
            if any("requests_total" in name and "invocations" in name for name in lines):
                found.add(lines["process_start_time_seconds"])
        return found


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ExitStack() as stop:
        hosts = stop.enter_context(two_hosts("lr", ADDRESSES))
        folder = Path(tempfile.mkdtemp(prefix="lwn-", dir="/tmp"))  # a socket's path is short
        stop.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Nodes(folder, hosts)
        stop.callback(lambda: [made.kill(number) for number in (1, 0) if hosts[number].address in made.running])
        made.start(0)
        made.await_run("-c", SERVE)
        made.join()
        yield made


def test_the_loss_of_a_node_loses_no_deployment(nodes: Nodes) -> None:
    model = versioned(nodes.folder, 1)
    options = [word for key, value in OPTIONS.items() for word in ("-C", f"{key}={value}")]
    nodes.likewise("deploy", str(model.folder), "--to", "ray", "--name", "two", "--trust", *options)
    nodes.await_running_on(*ADDRESSES)
    for _ in range(3):
        assert nodes.ask(*ADDRESSES) == [[200, ANSWER]] * 2
    assert len(nodes.processes_that_answered()) == 2  # each proxy prefers the replica beside it
    shutil.rmtree(model.folder)  # what comes back comes from the cluster
    nodes.kill(1)
    nodes.await_running_on(ADDRESSES[0], state="degraded")
    for _ in range(10):
        assert nodes.ask(ADDRESSES[0]) == [[200, ANSWER]]
    nodes.join()
    nodes.await_running_on(*ADDRESSES)
    assert nodes.ask(ADDRESSES[0]) == [[200, ANSWER]]
    nodes.likewise("delete", "two")
