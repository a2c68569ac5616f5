"""A standalone Spark cluster whose Python knows PySpark and PyArrow, nothing of Likewise, and no foreign network."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Self, TypeVar

import pyspark

SPARK = Path(pyspark.__file__).parent
PATIENCE = 90.0  # seconds
THEIRS = ("pyspark", "py4j", "pyarrow")
ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("spark_driver.py")
SPECULATION = {"spark.speculation": "true", "spark.speculation.quantile": "0.3", "spark.speculation.multiplier": "1.2"}
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # of JVMs that live for seconds
LOOPBACK = "127.0.0.1"
Found = TypeVar("Found")

# Every Python of an executor: whatever it asks of a network other than its host's own is refused.
OFFLINE = """
import sys

def _refuse(event, arguments):
    if event == "socket.getaddrinfo" and arguments[0] not in ("localhost", "127.0.0.1", "::1", None):
        raise OSError(f"no network here: {arguments[0]}")
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        raise OSError(f"no network here: {arguments[1]}")

sys.addaudithook(_refuse)
"""


def bare_python(folder: Path) -> Path:
    """The interpreter of a virtual environment that holds what Spark itself needs."""
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for name in THEIRS:
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files if ".." not in file.parts}:
            source = Path(str(distribution(name).locate_file(top)))
            if source.exists():
                (site / top).symlink_to(source)
    (site / "sitecustomize.py").write_text(OFFLINE)
    python = folder / "bin" / "python"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for code, said in (
        ("import pyspark, pyarrow; import likewise", "No module named 'likewise'"),
        ("import socket; socket.create_connection(('192.0.2.1', 9))", "no network here"),
    ):
        known = subprocess.run([python, "-c", code], capture_output=True, text=True, env=env, cwd=folder)
        assert said in known.stderr, known.stderr
    return python


@dataclass(frozen=True)
class Host:
    """Where a daemon runs. address: what others reach it by; inside: the command that starts a process there."""

    address: str = LOOPBACK
    inside: tuple[str, ...] = ()


@dataclass
class Cluster:
    """A master and its workers. python: what executors run under; hosts: the first is the master's and the driver's."""

    folder: Path
    python: Path
    hosts: Sequence[Host] = (Host(),)
    master: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    more_conf: Mapping[str, str] = field(default_factory=dict)

    @property
    def conf(self) -> dict[str, str]:
        """What a session on this cluster is made with."""
        return {
            "spark.pyspark.python": str(self.python),
            "spark.executorEnv.LIKEWISE_CACHE_HOME": str(self.folder / "executors-cache"),
            "spark.executor.memory": "512m",
            "spark.executor.cores": "1",
            "spark.driver.host": self.hosts[0].address,
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "1",
            **self.more_conf,
        }

    @property
    def driver_env(self) -> dict[str, str]:
        """Of a driver: one cache of what was packed, and modules of the tests."""
        own = {"LIKEWISE_CACHE_HOME": str(self.folder / "driver-cache"), "PYTHONPATH": str(ROOT)}
        return self.env_on(self.hosts[0]) | own

    def env_on(self, host: Host) -> dict[str, str]:
        """Of a process on `host`: nothing that tells Spark of another Python or address."""
        foreign = ("SPARK_", "PYSPARK_", "PYTHONPATH")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        own = {"SPARK_LOCAL_IP": host.address, "SPARK_HOME": str(SPARK), "SPARK_WORKER_DIR": str(self.folder)}
        return kept | own | {"JAVA_TOOL_OPTIONS": QUICK_START}

    def start(self, name: str, host: Host, kind: str, *arguments: str) -> Path:
        """A daemon of Spark's; its log."""
        log = self.folder / f"{name}.log"
        place = ["--host", host.address, "--port", "0", "--webui-port", "0"]
        command = [*host.inside, str(SPARK / "bin" / "spark-class"), f"org.apache.spark.deploy.{kind}", *place]
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
        """Workers of one core each, on the hosts in turn; ready when this returns."""
        logs = []
        for number in range(count):
            host = self.hosts[number % len(self.hosts)]
            folder = ["-d", str(self.folder / f"work{number}"), "--cores", "1", "--memory", "1g"]
            logs.append(self.start(f"worker{number}", host, "worker.Worker", *folder, self.master))
        for log in logs:
            awaited(log, r"Successfully registered with master")

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


def awaited(log: Path, pattern: str) -> str:
    """The first group of `pattern`, once it stands in the log."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[found.re.groups]
        time.sleep(0.05)
    raise AssertionError(f"no {pattern!r} in {log}:\n{log.read_text(errors='replace')[-3000:]}")


@contextmanager
def cluster(folder: Path, hosts: Sequence[Host] = (Host(),), workers: int = 2) -> Iterator[Cluster]:
    """A cluster that is ready; stopped at the end."""
    made = Cluster(folder, bare_python(folder / "bare"), hosts)
    try:
        log = made.start("master", hosts[0], "master.Master")
        made.master = awaited(log, r"Starting Spark master at (spark://\S+)")
        made.start_workers(workers)
        yield made
    finally:
        made.stop()


def answers_of_driver(made: Cluster, bundle: Path, texts: Sequence[str], folder: Path, *job: Path) -> Any:
    """What `spark_driver.py` prints on the cluster; its files go to `folder`."""
    (folder / "texts").write_text(json.dumps(texts))
    (folder / "conf").write_text(json.dumps(made.conf))
    arguments = [made.master, str(bundle), str(folder / "conf"), str(folder / "texts"), *map(str, job)]
    command = [*made.hosts[0].inside, sys.executable, str(DRIVER), *arguments]
    done = subprocess.run(command, env=made.driver_env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


class ClusterJob:
    """`likewise score … --runner spark` on the cluster, with speculation, which can be watched and killed."""

    def __init__(self, made: Cluster, model: Path, source: Path, output: Path, options: Sequence[str] = ()) -> None:
        self.output = output
        self._scored = output.parent / f".{output.name}.likewise-staging" / "scored"
        command = [*made.hosts[0].inside, sys.executable, "-m", "likewise.cli", "score", str(model), str(source)]
        command += ["-o", str(output), "--json", "--runner", "spark", "--master", made.master, *options]
        for name, value in (SPECULATION | made.conf).items():
            command += ["--conf", f"{name}={value}"]
        self._log = output.parent / "driver.log"
        self._out = output.parent / "driver.out"
        with self._out.open("wb") as out, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=made.driver_env, stdout=out, stderr=log, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()

    @property
    def chunks(self) -> dict[str, int]:
        """The results that are there, each with its file's number."""
        found = {}
        for path in self._scored.glob("*/*"):
            with suppress(FileNotFoundError):  # the job has just ended
                if path.suffix != ".tmp":
                    found[f"{path.parent.name}/{path.name}"] = path.stat().st_ino
        return found

    def until(self, condition: Callable[[], Found]) -> Found:
        """What `condition` says as soon as it is true; the job must not end before."""
        while not (found := condition()):
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-3000:]
            time.sleep(0.01)
        return found

    def reach(self, count: int) -> None:
        """Wait until so many chunks are scored."""
        self.until(lambda: len(self.chunks) >= count)

    def kill(self) -> None:
        """The driver and its JVM; executors end when they notice."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    def report(self) -> dict[str, Any]:
        """What it printed at its end."""
        assert self._process.wait(240) == 0, self._log.read_text(errors="replace")[-3000:]
        found: dict[str, Any] = json.loads(self._out.read_bytes())
        return found


def children(pid: int) -> list[int]:
    """The processes below `pid`, nearest first."""
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    own = [int(line) for line in done.stdout.split()]
    return own + [below for each in own for below in children(each)]


def command_of(pid: int) -> str:
    """A process's command line; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def below(cluster: Cluster, words: Sequence[str]) -> list[int]:
    """Processes of the cluster whose command line holds every word."""
    every = [pid for daemon in cluster.processes for pid in children(daemon.pid)]
    return [pid for pid in every if all(word in command_of(pid) for word in words)]


def kill(pid: int) -> None:
    """`kill -9`, also where it has just ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
