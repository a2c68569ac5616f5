"""Every target of ours passes the suite that other packages run too: a class a target."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.container_place import container_place
from tests.conformance.places import local_place, ray_place, sagemaker_place
from tests.support.aws.account import Account
from tests.support.ray.cluster import RayCluster

from likewise.testing.targets import TargetSuite, TargetUnderTest

pytestmark = pytest.mark.slow
pytest_plugins = ("tests.support.aws.fixtures", "tests.support.ray.fixtures")


class TestLocal(TargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, data_home: Path) -> Iterator[TargetUnderTest]:
        with local_place(data_home) as target:
            yield target


@pytest.mark.xdist_group("ray")
class TestRay(TargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, data_home: Path, shared_ray_cluster: RayCluster) -> Iterator[TargetUnderTest]:
        with ray_place(shared_ray_cluster) as target:
            yield target


class TestContainer(TargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, data_home: Path) -> Iterator[TargetUnderTest]:
        with container_place(data_home) as target:
            yield target


class TestSageMaker(TargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, data_home: Path, shared_account: Account) -> Iterator[TargetUnderTest]:
        with sagemaker_place(shared_account) as target:
            yield target
