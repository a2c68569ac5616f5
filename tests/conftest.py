"""Fixtures and hooks shared by all tests."""

from __future__ import annotations

import os
import signal
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

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads in two workers would busy-wait against each other
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # set before the hub is imported: missing models fail without retries
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; tests and their processes need it
    signal.signal(signal.SIGINT, signal.default_int_handler)
# without deadlines, because workers run in parallel; `make test-all` selects `thorough`
settings.register_profile("likewise", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile("likewise")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    group_and_order(items)


GROUP = pytest.StashKey[ExitStack]()


@pytest.fixture(scope="session")
def while_group_runs(pytestconfig: pytest.Config) -> Iterator[ExitStack]:
    """An exit stack for a cluster or a daemon; closed at the end of the group, so that it takes no CPU from others."""
    with pytestconfig.stash.setdefault(GROUP, ExitStack()) as stack:
        yield stack


@pytest.hookimpl(trylast=True)  # after the test's own fixtures are torn down
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if ends_group(item, nextitem) and (stack := item.config.stash.get(GROUP, None)) is not None:
        stack.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    summarize(terminalreporter)


def pytest_sessionfinish(session: pytest.Session) -> None:
    fail_where_all_must_run(session)


@pytest.fixture(scope="module", autouse=True)
def _mlflow_settings_are_unchanged() -> Iterator[None]:
    """A module that leaves MLflow's store or experiment changed fails itself, instead of a later module."""
    before = mlflow_settings()
    yield
    assert mlflow_settings() == before


def mlflow_settings() -> tuple[dict[str, str], bool]:
    """MLflow's environment variables, and whether a tracking URI is set."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    return variables, mlflow.is_tracking_uri_set()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The demo's models in an MLflow store and their bundle, created once per run by `likewise demo`."""
    folder, created = once_a_run(tmp_path_factory, "demo", make_store)
    return Store(folder / "out", **created)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """The mount point of a real file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root; the limit on file sizes is tested elsewhere")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
