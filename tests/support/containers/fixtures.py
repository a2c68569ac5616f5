"""Fixtures of containers: one daemon, one registry and one store of images for all tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.containers.cache import Cache
from tests.support.containers.daemon import Docker, docker_daemon
from tests.support.containers.registry import registry

from likewise.images.containers import find_engine, load
from likewise.images.store import Store


class Containers:
    """A daemon, and a user's cache with a base and with environments of engines."""

    def __init__(self, docker: Docker, cache: Cache) -> None:
        self.docker, self.cache = docker, cache
        self._loaded: set[str] = set()

    @contextmanager
    def used(self, *engines: str) -> Iterator[Docker]:
        """This process finds daemon and cache, and both hold the environments of these engines."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", self.docker.host)
            patch.setenv("LIKEWISE_CACHE_HOME", str(self.cache.home))
            for engine in engines:
                if engine not in self._loaded:
                    load(self.cache.store, self.cache.environment(engine), find_engine("docker"))
                    self._loaded.add(engine)
            yield self.docker


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Of no effect until they are used."""
    with docker_daemon() as docker:
        yield Containers(docker, Cache(tmp_path_factory.mktemp("containers")))


@pytest.fixture(scope="session")
def registry_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry; each test takes repositories of its own."""
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def images(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "images")
