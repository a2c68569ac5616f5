"""The daemon and the cache that the container tests of a run share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.support.containers.cache import Cache
from tests.support.containers.daemon import Docker

from likewise.images.containers import find_engine, load


class Containers:
    """A daemon, and a cache folder with a base image and environments of engines."""

    def __init__(self, docker: Docker, cache: Cache) -> None:
        self.docker, self.cache = docker, cache
        self._loaded: set[str] = set()

    @contextmanager
    def used(self, *engines: str) -> Iterator[Docker]:
        """Set the environment variables of the daemon and the cache, and load the environments of these engines."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", self.docker.host)
            patch.setenv("LIKEWISE_CACHE_HOME", str(self.cache.home))
            for engine in engines:
                if engine not in self._loaded:
                    load(self.cache.store, self.cache.environment(engine), find_engine("docker"))
                    self._loaded.add(engine)
            yield self.docker
