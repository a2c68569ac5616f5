"""A standalone Spark cluster whose Python has PySpark and PyArrow, but neither Likewise nor network access."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sysconfig
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

import pyspark
from tests.support.hosts import LOOPBACK, Host
from tests.support.processes import command_of, descendants
from tests.support.spark.classes import class_archive

SPARK = Path(pyspark.__file__).parent
PATIENCE = 90.0  # seconds
PREINSTALLED = ("pyspark", "py4j", "pyarrow")
ROOT = Path(__file__).parents[3]
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData"  # for JVMs that run for seconds

# In every executor's Python: refuses all network access except to its own host.
OFFLINE = """
import sys

def _refuse(event, arguments):
    if event == "socket.getaddrinfo" and arguments[0] not in ("localhost", "127.0.0.1", "::1", None):
        raise OSError(f"no network here: {arguments[0]}")
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        raise OSError(f"no network here: {arguments[1]}")

sys.addaudithook(_refuse)
"""

# Checks such a Python: it has Spark's packages, but neither Likewise nor network access.
CHECK = """
import socket
import pyspark, pyarrow
for attempt in (lambda: __import__("likewise"), lambda: socket.create_connection(("192.0.2.1", 9))):
    try:
        attempt()
    except (ImportError, OSError) as error:
        print(error)
"""


def java_env(folder: Path, address: str = LOOPBACK) -> dict[str, str]:
    """Variables of a process that starts Spark: the JVM starts quickly, and its temporary files are in `folder`."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    archive = class_archive(QUICK_START)
    options = f"{QUICK_START} -XX:SharedArchiveFile={archive} -Xlog:disable -Djava.io.tmpdir={scratch}"
    return {"SPARK_LOCAL_IP": address, "TMPDIR": str(scratch), "JAVA_TOOL_OPTIONS": options}


def bare_python(folder: Path) -> Path:
    """The Python interpreter of a virtual environment with only the packages that Spark itself needs."""
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for name in PREINSTALLED:
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files if ".." not in file.parts}:
            source = Path(str(distribution(name).locate_file(top)))
            if source.exists():
                (site / top).symlink_to(source)
    (site / "sitecustomize.py").write_text(OFFLINE)
    python = folder / "bin" / "python"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    checked = subprocess.run([python, "-c", CHECK], capture_output=True, text=True, env=env, cwd=folder)
    assert checked.stdout.splitlines() == ["No module named 'likewise'", "no network here: 192.0.2.1"], checked.stderr
    return python


@dataclass
class Cluster:
    """A master and its workers. python: the executors' interpreter; hosts: the first runs the master and the driver."""

    folder: Path
    python: Path
    hosts: Sequence[Host] = (Host(),)
    master: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    more_conf: Mapping[str, str] = field(default_factory=dict)

    @property
    def conf(self) -> dict[str, str]:
        """The Spark configuration of a session on this cluster."""
        return {
            "spark.pyspark.python": str(self.python),
            "spark.executorEnv.LIKEWISE_CACHE_HOME": str(self.folder / "executors-cache"),
            "spark.executorEnv.PYTHONDONTWRITEBYTECODE": "",  # as on ordinary hosts
            "spark.executor.memory": "512m",
            "spark.executor.cores": "1",
            "spark.driver.host": self.hosts[0].address,
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "1",
            **self.more_conf,
        }

    @property
    def driver_env(self) -> dict[str, str]:
        """The environment of a driver: with a cache for packed archives, and the tests' modules importable."""
        own = {"LIKEWISE_CACHE_HOME": str(self.folder / "driver-cache"), "PYTHONPATH": str(ROOT)}
        return self.env_on(self.hosts[0]) | own

    def env_on(self, host: Host) -> dict[str, str]:
        """The environment of a process on `host`, without variables that set another Python or address for Spark."""
        foreign = ("SPARK_", "PYSPARK_", "PYTHONPATH")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        own = {"SPARK_HOME": str(SPARK), "SPARK_WORKER_DIR": str(self.folder)}
        return inherited | own | java_env(self.folder, host.address)

    def start(self, name: str, host: Host, kind: str, *arguments: str) -> Path:
        """Start a Spark daemon; the path of its log."""
        log = self.folder / f"{name}.log"
        listen = ["--host", host.address, "--port", "0", "--webui-port", "0"]
        command = [*host.inside, str(SPARK / "bin" / "spark-class"), f"org.apache.spark.deploy.{kind}", *listen]
        with log.open("wb") as stream:
            daemon = subprocess.Popen(
                [*command, *arguments],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=self.env_on(host),
                start_new_session=True,
            )
        self.processes.append(daemon)
        return log

    def start_workers(self, count: int) -> None:
        """Start workers of one core each, on the hosts in turn, and wait until they are registered."""
        logs = []
        for number in range(count):
            host = self.hosts[number % len(self.hosts)]
            folder = ["-d", str(self.folder / f"work{number}"), "--cores", "1", "--memory", "1g"]
            logs.append(self.start(f"worker{number}", host, "worker.Worker", *folder, self.master))
        for log in logs:
            wait_for_log(log, r"Successfully registered with master")

    def stop(self) -> None:
        for daemon in reversed(self.processes):
            if daemon.poll() is None:
                daemon.terminate()
        for daemon in self.processes:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(10)


def wait_for_log(log: Path, pattern: str) -> str:
    """Wait until `pattern` matches in the log; its last group."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if match := re.search(pattern, log.read_text(errors="replace")):
            return match[match.re.groups]
        time.sleep(0.05)
    raise AssertionError(f"no {pattern!r} in {log}:\n{log.read_text(errors='replace')[-3000:]}")


@contextmanager
def cluster(folder: Path, hosts: Sequence[Host] = (Host(),), workers: int = 2) -> Iterator[Cluster]:
    """A running cluster, stopped at the end."""
    running = Cluster(folder, bare_python(folder / "bare"), hosts)
    try:
        log = running.start("master", hosts[0], "master.Master")
        running.master = wait_for_log(log, r"Starting Spark master at (spark://\S+)")
        running.start_workers(workers)
        yield running
    finally:
        running.stop()


def below(cluster: Cluster, words: Sequence[str]) -> list[int]:
    """The processes of the cluster whose command line contains every word."""
    every = [pid for daemon in cluster.processes for pid in descendants(daemon.pid)]
    return [pid for pid in every if all(word in command_of(pid) for word in words)]


def kill(pid: int) -> None:
    """`kill -9`; ignores a process that has just exited."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
