"""The thread pools of numeric libraries in each kind of process: as many threads as cores, which sleep while they wait.

The model loads a library with OpenMP, which reports its settings, and writes them to a file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from tests.support.containers.service import SERVE
from tests.support.models import save_upper, seal
from tests.support.processes import LIKEWISE, PATIENCE, free_port, likewise, run, running, until

from likewise.core.cores import COUNTS, OURS, WAITING, usable_cores

REPORT = """
import json, os
assert "libgomp" not in open("/proc/self/maps").read()
path = os.environ["POOLS"] + "/" + str(os.getpid())
before, target = os.dup(2), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.dup2(target, 2)
import sklearn.utils._openmp_helpers
import threadpoolctl
os.dup2(before, 2)
pools = {pool["user_api"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
os.write(target, ("\\n" + json.dumps(pools)).encode())
os.rename(path, path + ".done")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pools") / "bundle" / "model"
    return save_upper(folder, loading=REPORT, input_example=pd.DataFrame({"text": ["example"]}))


@pytest.fixture(scope="module")
def bundle(model: Path) -> str:
    return str(seal(model.parent).path)


class Machine:
    """An environment without settings of threads, and the reports of the processes that have loaded the model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pools = Path(tempfile.mkdtemp(dir="/dev/shm"))  # also visible to a process that verifies in isolation
        ours = {*COUNTS, *WAITING, OURS}
        self.env = {name: value for name, value in os.environ.items() if name not in ours}
        self.env |= {f"LIKEWISE_{name}_HOME": str(folder / name) for name in ("DATA", "CACHE", "CONFIG")}
        self.env |= {"POOLS": str(self.pools), "OMP_DISPLAY_ENV": "TRUE"}

    def check(self, threads: int, processes: int | None, policy: str = "PASSIVE") -> None:
        until(lambda: len(list(self.pools.glob("*.done"))) >= (processes or 1), PATIENCE)
        reports = [path.read_text() for path in self.pools.glob("*.done")]
        assert processes in (None, len(reports))
        for report in reports:
            assert set(re.findall(r"OMP_WAIT_POLICY = '(\w+)'", report)) == {policy}, report
            assert set(re.findall(r"OMP_NUM_THREADS = '(\d+)'", report)) == {str(threads)}, report
            pools = json.loads(report.splitlines()[-1])
            assert pools == {"openmp": threads, "blas": min(threads, usable_cores())}, report

    @contextmanager
    def serving(self, *words: str) -> Iterator[None]:
        command = [*LIKEWISE, "serve", *words, "-p", "0", "--trust", "--json"]
        with running(command, self.folder / "log", env=self.env) as server:
            server.wait_for_response(f"{server.document()['url']}/ready")
            yield


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    shutil.rmtree(machine.pools)


WORKERS = min(4, usable_cores())  # of a server by default
SHARE = usable_cores() // WORKERS


def test_server(bundle: str, machine: Machine) -> None:
    with machine.serving(bundle):
        machine.check(SHARE, WORKERS)


def test_server_that_runs_the_model_itself(bundle: str, machine: Machine) -> None:
    with machine.serving(bundle, "--in-process"):
        machine.check(usable_cores(), 1)


def test_workers_divide_the_cores(bundle: str, machine: Machine) -> None:
    with machine.serving(bundle, "--workers", "2"):
        machine.check(max(1, usable_cores() // 2), 2)


@pytest.mark.parametrize("words", [(), pytest.param(("--workers", "2"), marks=pytest.mark.long)])
def test_user_settings_win(bundle: str, machine: Machine, words: tuple[str, ...]) -> None:
    machine.env |= {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}
    with machine.serving(bundle, *words):
        machine.check(3, 2 if words else WORKERS, "ACTIVE")


def _score(bundle: str, machine: Machine) -> None:
    likewise("score", bundle, _rows(machine), "-o", machine.folder / "out.csv", "--trust", env=machine.env)


def _verify(bundle: str, machine: Machine) -> None:
    against = ("--against", "mlflow", "--golden", _rows(machine))
    likewise("verify", bundle, *against, "--trust", env=machine.env)


def _bundle(bundle: str, machine: Machine) -> None:
    model = Path(bundle, "model")
    likewise("bundle", model, "-o", machine.folder / "built", "--trust", "--no-measure", env=machine.env)


def _deploy(bundle: str, machine: Machine) -> None:
    likewise("deploy", bundle, "--to", "local", "--name", "pools", "--trust", env=machine.env)
    likewise("delete", "pools", env=machine.env)


def _serve_in_container(bundle: str, machine: Machine) -> None:
    settings = {"SAGEMAKER_BIND_TO_PORT": str(free_port()), "LIKEWISE_HOST": "127.0.0.1", "LIKEWISE_TRUST": "true"}
    paths = {"LIKEWISE_BUNDLE": bundle, "PYTHONPATH": os.pathsep.join(sys.path)}
    inherited = {name: value for name, value in machine.env.items() if not name.startswith("LIKEWISE_")}
    with running(SERVE, machine.folder / "log", env={**inherited, **settings, **paths}) as server:
        server.line("ready at ")
        assert server.stop() == 0


def _rows(machine: Machine) -> Path:
    path = machine.folder / "rows.csv"
    path.write_text("text\na\nb\n")
    return path


@pytest.mark.parametrize(
    ("command", "processes", "threads"),
    [
        (_score, 1, usable_cores()),
        pytest.param(_verify, 2, usable_cores(), marks=pytest.mark.long),
        (_bundle, 2, usable_cores()),
        pytest.param(_deploy, None, SHARE, marks=pytest.mark.long),
        (_serve_in_container, None, SHARE),
    ],
    ids=["score", "verify", "bundle", "deploy to local", "container"],
)
def test_processes_of(
    bundle: str, machine: Machine, command: Callable[[str, Machine], None], processes: int | None, threads: int
) -> None:
    """verify: of Likewise and of MLflow alone. bundle: the children that trace and that verify.

    The other workers of a service may not have loaded the model when it is stopped.
    """
    command(bundle, machine)
    machine.check(threads, processes)


@pytest.mark.long
@pytest.mark.xdist_group("spark")
def test_spark_workers_have_the_cores_of_a_task(bundle: str, machine: Machine) -> None:
    words = ("score", bundle, _rows(machine), "-o", machine.folder / "out.csv", "--trust", "--runner", "spark")
    likewise(*words, "--master", "local[2]", env=machine.env)
    machine.check(1, None)


def test_import_of_likewise_changes_no_variables(machine: Machine) -> None:
    """In a user's process, whose libraries may be loaded already, the user decides."""
    code = (
        "import os; before = dict(os.environ); import likewise; likewise.open_bundle; assert dict(os.environ) == before"
    )
    run([sys.executable, "-c", code], env=machine.env)
