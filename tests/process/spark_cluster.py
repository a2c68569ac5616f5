"""A standalone Spark cluster on loopback, whose Python knows PySpark and PyArrow and nothing of Likewise."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sysconfig
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

import pyspark

SPARK = Path(pyspark.__file__).parent
PATIENCE = 90.0  # seconds
THEIRS = ("pyspark", "py4j", "pyarrow")


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
    python = folder / "bin" / "python"
    known = subprocess.run([python, "-c", "import pyspark, pyarrow; import likewise"], capture_output=True, text=True)
    assert "No module named 'likewise'" in known.stderr, known.stderr
    return python


@dataclass
class Cluster:
    """A master and its workers. python: what executors run under; env: for the processes of a driver."""

    folder: Path
    python: Path
    master: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def conf(self) -> dict[str, str]:
        """What a session on this cluster is made with."""
        return {
            "spark.pyspark.python": str(self.python),
            "spark.executorEnv.LIKEWISE_CACHE_HOME": str(self.folder / "executors-cache"),
            "spark.executor.memory": "512m",
            "spark.executor.cores": "1",
            "spark.driver.host": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "1",
        }

    @property
    def env(self) -> dict[str, str]:
        """Of this machine, without anything that tells Spark of another Python or address."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
        return kept | {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": str(SPARK), "SPARK_WORKER_DIR": str(self.folder)}

    def start(self, name: str, *arguments: str) -> Path:
        """A daemon of Spark's; its log."""
        log = self.folder / f"{name}.log"
        command = [str(SPARK / "bin" / "spark-class"), f"org.apache.spark.deploy.{arguments[0]}", *arguments[1:]]
        with log.open("wb") as stream:
            daemon = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, env=self.env, start_new_session=True
            )
        self.processes.append(daemon)
        return log

    def add_worker(self, number: int) -> None:
        """One more worker of one core."""
        place = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0", "-d", str(self.folder / f"work{number}")]
        log = self.start(f"worker{number}", "worker.Worker", *place, "--cores", "1", "--memory", "1g", self.master)
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
def cluster(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    """A cluster that is ready; stopped at the end."""
    made = Cluster(folder, bare_python(folder / "bare"))
    try:
        log = made.start("master", "master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
        made.master = awaited(log, r"Starting Spark master at (spark://\S+)")
        for number in range(workers):
            made.add_worker(number)
        yield made
    finally:
        made.stop()


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
