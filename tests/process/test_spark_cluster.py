"""A standalone cluster whose executors know nothing of Likewise: the same answers, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.process.spark_cluster import Cluster, below, children, cluster, command_of, kill
from tests.process.spark_room import predicted

from likewise import api
from likewise.batch import ScoreOptions

pytest_plugins = ("tests.process.spark_fixtures",)
pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("spark_driver.py")
ROWS = 4000
SPECULATION = {"spark.speculation": "true", "spark.speculation.quantile": "0.3", "spark.speculation.multiplier": "1.2"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as ready:
        yield ready


@pytest.fixture(scope="module")
def env(made: Cluster) -> dict[str, str]:
    """Of drivers: one cache of what was packed, and modules of the tests."""
    root = str(Path(__file__).parents[2])
    return made.env | {"LIKEWISE_CACHE_HOME": str(made.folder / "driver-cache"), "PYTHONPATH": root}


@dataclass
class Rows:
    """An input with bad rows in it, and what the local runner makes of it."""

    source: Path
    rows: bytes
    quarantine: list[dict[str, Any]]
    bad: int


@pytest.fixture(scope="module")
def rows(text_model: api.Bundle, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("rows")
    source = folder / "in.jsonl"
    with source.open("wb") as stream:
        for row in range(ROWS):
            line = json.dumps({"id": row, "text": f"{'word ' * (row % 40)} number {row}"}).encode()
            stream.write((b"broken \xff" if row % 100 == 7 else line) + b"\n")
    report = api.score(text_model, source, folder / "local", options=ScoreOptions(window=64))
    return Rows(source, *output_of(folder / "local"), report.rows_quarantined)


def output_of(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    (part,) = folder.glob("part-*")
    return part.read_bytes(), pq.read_table(folder / "_quarantine.parquet").to_pylist()


def test_the_udf_answers_where_nothing_is_installed(
    made: Cluster, env: dict[str, str], text_model: api.Bundle, tmp_path: Path
) -> None:
    texts = [f"movie {n} is {'good ' * (n % 9)}" for n in range(300)]
    (tmp_path / "texts").write_text(json.dumps(texts))
    (tmp_path / "conf").write_text(json.dumps(made.conf))
    command = [sys.executable, str(DRIVER), made.master, str(text_model.path), str(tmp_path / "conf")]
    done = subprocess.run([*command, str(tmp_path / "texts")], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["answers"] == dict(zip(texts, predicted(text_model, texts), strict=True))
    cache = str(made.folder / "executors-cache")
    assert told["workers"]
    for python, package in told["workers"]:
        assert python == str(made.python)
        assert package == "none" or package.startswith(cache)


class Job:
    """`likewise score … --runner spark` on the cluster, which can be watched and killed."""

    def __init__(self, made: Cluster, env: dict[str, str], model: api.Bundle, source: Path, output: Path) -> None:
        self.output = output
        self.scored = output.parent / f".{output.name}.likewise-staging" / "scored"
        command = [sys.executable, "-m", "likewise.cli", "score", str(model.path), str(source), "-o", str(output)]
        command += ["--json", "--window", "64", "--runner", "spark", "--master", made.master]
        for name, value in (made.conf | SPECULATION).items():
            command += ["--conf", f"{name}={value}"]
        self.log = output.parent / "driver.log"
        self._out = output.parent / "driver.out"
        with self._out.open("wb") as out, self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stdout=out, stderr=log, start_new_session=True)

    @property
    def chunks(self) -> int:
        return sum(1 for path in self.scored.glob("*/*") if path.suffix != ".tmp")

    def reach(self, share: float) -> bool:
        """Wait until so much is scored; False where the job has ended before."""
        while self.chunks < share * ROWS / 64:
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def report(self) -> dict[str, Any]:
        """What it printed at its end."""
        assert self.process.wait(240) == 0, self.log.read_text(errors="replace")[-3000:]
        found: dict[str, Any] = json.loads(self._out.read_bytes())
        return found


def check(job: Job, rows: Rows) -> None:
    report = job.report()
    assert (report["rows_in"], report["rows_quarantined"]) == (ROWS, rows.bad)
    assert report["rows_ok"] == ROWS - rows.bad
    found, quarantine = output_of(job.output)
    assert found == rows.rows
    assert quarantine == rows.quarantine


def test_workers_and_an_executor_killed_on_the_way(
    made: Cluster, env: dict[str, str], text_model: api.Bundle, rows: Rows, tmp_path: Path
) -> None:
    job = Job(made, env, text_model, rows.source, tmp_path / "out")
    victims: list[tuple[float, Callable[[], list[int]]]] = [
        (0.1, lambda: python_workers(made)),
        (0.5, lambda: below(made, ["CoarseGrainedExecutorBackend"])),
        (0.9, lambda: python_workers(made)),
    ]
    killed = []
    for share, find in victims:
        if job.reach(share) and (found := find()):
            kill(found[0])
            killed.append(found[0])
    check(job, rows)
    assert len(killed) >= 2


def python_workers(made: Cluster) -> list[int]:
    """The processes that run the tasks: children of a daemon of PySpark's."""
    daemons = below(made, ["pyspark.daemon"])
    forked = [pid for daemon in daemons for pid in children(daemon)]
    return forked or [pid for pid in daemons if "pyspark.worker" in command_of(pid)]


def test_a_driver_killed_again_and_again_ends_with_the_same_rows(
    made: Cluster, env: dict[str, str], text_model: api.Bundle, rows: Rows, tmp_path: Path
) -> None:
    for share in (0.1, 0.5, 0.9):
        job = Job(made, env, text_model, rows.source, tmp_path / "out")
        assert job.reach(share), job.log.read_text(errors="replace")[-3000:]
        job.kill()
        assert not job.output.exists()
    check(Job(made, env, text_model, rows.source, tmp_path / "out"), rows)
