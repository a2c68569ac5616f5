"""The daemon and the cache of a run together: what its tests of containers share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.support.containers.cache import Cache
from tests.support.containers.daemon import Docker

from likewise.images.containers import find_engine, load


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
