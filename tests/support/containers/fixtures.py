"""Fixtures for containers: one daemon and one registry for all tests of a run, and an image store per test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.containers.cache import Cache
from tests.support.containers.daemon import docker_daemon
from tests.support.containers.registry import registry
from tests.support.containers.shared import Containers

from likewise.images.store import Store


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory, while_group_runs: ExitStack) -> Containers:
    """The daemon and the cache; they take effect within `Containers.used`."""
    docker = while_group_runs.enter_context(docker_daemon())
    return Containers(docker, Cache(tmp_path_factory.mktemp("containers")))


@pytest.fixture(scope="session")
def registry_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry; each test must use its own repositories."""
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def images(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "images")
