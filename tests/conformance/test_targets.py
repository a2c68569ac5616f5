"""Runs the conformance suite, which is also published for other packages, for every target of Likewise."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.aws.account import REGION, Account, logged_in
from tests.support.aws.images import EMPTY
from tests.support.classifier import classifier_bundle
from tests.support.containers.shared import Containers
from tests.support.local import left_in, processes_in
from tests.support.ray.cluster import RayCluster

from likewise.testing.deployer import Deployer
from likewise.testing.targets import TargetSuite, TargetUnderTest
from likewise.testing.targets.suite import Deploy

pytest_plugins = ("tests.support.aws.fixtures", "tests.support.containers.fixtures", "tests.support.ray.fixtures")
SIGNED = f"AWS4-HMAC-SHA256 Credential=a/20260101/{REGION}/sagemaker/aws4_request, SignedHeaders=host, Signature=b"


class SlowTargetSuite(TargetSuite):
    """For targets that take seconds to deploy: only one test with killed processes is not long."""

    @pytest.mark.long
    def test_interrupted_plan_is_resumed_by_the_same_plan(
        self, deploy: Deploy, deployer: Deployer, one: Path, two: Path
    ) -> None:
        super().test_interrupted_plan_is_resumed_by_the_same_plan(deploy, deployer, one, two)

    @pytest.mark.long
    def test_interrupted_plan_is_rolled_back_by_another_plan(
        self, deploy: Deploy, deployer: Deployer, one: Path, two: Path
    ) -> None:
        super().test_interrupted_plan_is_rolled_back_by_another_plan(deploy, deployer, one, two)

    @pytest.mark.long
    def test_plan_interrupted_within_a_step_is_rolled_back_by_another_plan(
        self, target: TargetUnderTest, deploy: Deploy, deployer: Deployer, one: Path, two: Path
    ) -> None:
        super().test_plan_interrupted_within_a_step_is_rolled_back_by_another_plan(target, deploy, deployer, one, two)


@pytest.mark.xdist_group("local")
class TestLocal(TargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, data_home: Path) -> Iterator[TargetUnderTest]:
        yield TargetUnderTest("local", lambda: left_in(data_home), {"drain_linger_s": "0.2"})
        for pid in processes_in(data_home):  # left over by failed tests
            os.kill(pid, signal.SIGKILL)


@pytest.mark.xdist_group("ray")
class TestRay(SlowTargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, shared_ray_cluster: RayCluster) -> Iterator[TargetUnderTest]:
        options = {
            "ray_actor_options": '{"num_cpus": 0.2}',
            "max_constructor_retry_count": "1",
            "graceful_shutdown_wait_loop_s": "0.2",
            "health_check_period_s": "1",
            "timeout_s": "90",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in shared_ray_cluster.caller_env.items():
                patch.setenv(name, value)
            yield TargetUnderTest("ray", shared_ray_cluster.left, options, integer_option="num_replicas", callers=1)


@pytest.mark.xdist_group("containers")
class TestContainer(SlowTargetSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, data_home: Path, containers: Containers) -> Iterator[TargetUnderTest]:
        """A Docker daemon with preloaded environments of the engines, whose layers a deletion does not remove."""
        with containers.used("testing", "openvino", "pyfunc") as docker:
            options = containers.cache.options()
            pyfunc = {"lock": str(containers.cache.lock)}
            yield TargetUnderTest("container:/docker", docker.left, options, pyfunc_options=pyfunc, callers=2)

    @pytest.fixture(scope="class")
    @classmethod
    def pipeline(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Compiled for OpenVINO, which images of pipelines contain and which is small."""
        return classifier_bundle(tmp_path_factory.mktemp("models") / "pipeline", compiled=True)


@pytest.mark.xdist_group("sagemaker")
class TestSageMaker(TargetSuite):
    """Uses the emulator, which runs containers as processes and reads the bundle from S3."""

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, shared_account: Account) -> Iterator[TargetUnderTest]:
        options = {**shared_account.options(EMPTY), "bundle_in": "s3"}
        with logged_in():
            yield TargetUnderTest(
                shared_account.uri,
                shared_account.resources,
                options,
                integer_option="instance_count",
                callers=2,
                headers={"Authorization": SIGNED},
                names_bundle=False,
            )
