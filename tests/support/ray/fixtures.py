"""Fixtures of tests on Ray: one cluster per run, and its target; test modules list this module in `pytest_plugins`.

These test modules belong to the xdist group `ray`, so that one worker runs them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.support.ray.cluster import RayCluster, started_cluster
from tests.support.ray.deployments import delete, versioned

from likewise.core.spec import ModelSpec
from likewise.targets.ray.target import RayTarget


@pytest.fixture(scope="session")
def shared_ray_cluster(while_group_runs: ExitStack) -> RayCluster:
    """One cluster for all tests that clean up after themselves."""
    return while_group_runs.enter_context(started_cluster(cpus=8, dashboard=True))


@pytest.fixture(scope="module")
def ray_cluster(shared_ray_cluster: RayCluster) -> RayCluster:
    """The cluster of a module, which overrides this fixture if it needs another one."""
    return shared_ray_cluster


@pytest.fixture(scope="module")
def ray_target(ray_cluster: RayCluster) -> Iterator[RayTarget]:
    """The target, in an environment with the cluster's address; remaining deployments are deleted at the end."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ray_cluster.caller_env.items():
            patch.setenv(name, value)
        target = RayTarget("ray-serve")
        yield target
        for each in target.found():
            delete(target, each.name)


@pytest.fixture(scope="session")
def ray_models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ModelSpec]:
    """Versions 1 and 2 of a model."""
    folder = tmp_path_factory.mktemp("ray-models")
    return {version: versioned(folder, version) for version in (1, 2)}
