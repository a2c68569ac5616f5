"""The fixture that tests of a Ray cluster share; each file has a `cluster` of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.process.ray_cluster import RayCluster
from tests.process.ray_room import delete

from likewise.targets.ray.target import RayTarget


@pytest.fixture
def target(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayTarget]:
    """Left empty by each test."""
    for name in ("RAY_AUTH_MODE", "LIKEWISE_CACHE_HOME"):
        monkeypatch.setenv(name, cluster.env[name])
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    made = RayTarget("ray-serve")
    yield made
    for each in made.found():
        delete(made, each.name)
    assert made.found() == []
