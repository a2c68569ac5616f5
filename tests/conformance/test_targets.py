"""Every target of ours passes the suite that other packages run too: a class a target."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.places import container_place, local_place, ray_place, sagemaker_place
from tests.support.aws.account import Account
from tests.support.classifier import classifier_bundle
from tests.support.containers.shared import Containers
from tests.support.ray.cluster import RayCluster

from likewise.testing.targets import TargetSuite, TargetUnderTest

pytestmark = pytest.mark.slow
pytest_plugins = ("tests.support.aws.fixtures", "tests.support.containers.fixtures", "tests.support.ray.fixtures")


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


@pytest.mark.xdist_group("containers")
class TestContainer(TargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, data_home: Path, containers: Containers) -> Iterator[TargetUnderTest]:
        with container_place(containers) as target:
            yield target

    @pytest.fixture(scope="class")
    @classmethod
    def pipeline(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """With OpenVINO, as it is what images of pipelines hold, and small."""
        return classifier_bundle(tmp_path_factory.mktemp("models") / "pipeline", compiled=True)


@pytest.mark.xdist_group("sagemaker")
class TestSageMaker(TargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, data_home: Path, shared_account: Account) -> Iterator[TargetUnderTest]:
        with sagemaker_place(shared_account) as target:
            yield target
