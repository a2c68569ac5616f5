"""What every test may ask for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pytest
from hypothesis import settings
from tests.support.scheduling import ends_group, fail_where_all_must_run, group_and_order, summarize
from tests.support.sentiment_store import Store, make_store
from tests.support.shared import once_a_run

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads of two files would spin against each other
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything imports the hub: a model that is missing is not retried
settings.register_profile("house", deadline=None)  # files run side by side: no test times anything
settings.load_profile("house")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    group_and_order(items)


GROUP = pytest.StashKey[ExitStack]()


@pytest.fixture(scope="session")
def while_group_runs(pytestconfig: pytest.Config) -> Iterator[ExitStack]:
    """Where a cluster or a daemon is entered, so that it does not run on, and take CPU time, beside other groups."""
    with pytestconfig.stash.setdefault(GROUP, ExitStack()) as stack:
        yield stack


@pytest.hookimpl(trylast=True)  # after what the test itself has set up is torn down
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if ends_group(item, nextitem) and (stack := item.config.stash.get(GROUP, None)) is not None:
        stack.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    summarize(terminalreporter)


def pytest_sessionfinish(session: pytest.Session) -> None:
    fail_where_all_must_run(session)


@pytest.fixture(scope="module", autouse=True)
def _mlflow_is_left_as_it_was() -> Iterator[None]:
    """A file that leaves a store or an experiment chosen fails here, not a later one that finds the wrong store."""
    before = mlflow_settings()
    yield
    assert mlflow_settings() == before


def mlflow_settings() -> tuple[dict[str, str], bool]:
    """What MLflow reads from the environment, and whether anybody told it of a store."""
    chosen = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    return chosen, mlflow.is_tracking_uri_set()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The demo's models in an MLflow store, and their bundle, made once a run by `likewise demo`."""
    folder, made = once_a_run(tmp_path_factory, "demo", make_store)
    return Store(folder / "out", **made)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root; the limit on file sizes is tested all the same")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
