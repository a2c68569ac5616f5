"""What every test may ask for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.process.sentiment_store import Store, make_store

settings.register_profile("house", deadline=None)  # files run side by side: no test times anything
settings.load_profile("house")


@pytest.fixture(scope="module", autouse=True)
def _own_experiment() -> Iterator[None]:
    """`mlflow.set_experiment` sets the environment, where the commands of a later file would find another store's."""
    yield
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The chapter's two models in an MLflow store: trained once a session, small."""
    return make_store(tmp_path_factory.mktemp("store"))


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
