"""A place for each target that the suite runs over: a row a target."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.aws.account import REGION, Account, logged_in
from tests.support.aws.images import EMPTY
from tests.support.containers.shared import Containers
from tests.support.ray.cluster import RayCluster

from likewise.testing.targets import TargetUnderTest


@contextmanager
def local_place(data: Path) -> Iterator[TargetUnderTest]:
    """This machine; a deployment's processes are told by their environment, which names this test's folder."""
    options = {"start_timeout_s": "60", "drain_linger_s": "0.2"}
    yield TargetUnderTest("local", lambda: left_of_local(data), options)
    for pid in processes_in(data):  # of a test that failed
        os.kill(pid, signal.SIGKILL)


@contextmanager
def ray_place(cluster: RayCluster) -> Iterator[TargetUnderTest]:
    """The Ray cluster of this run."""
    options = {
        "ray_actor_options": '{"num_cpus": 0.2}',
        "max_constructor_retry_count": "1",
        "graceful_shutdown_wait_loop_s": "0.2",
        "health_check_period_s": "0.3",
        "timeout_s": "90",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.caller_env.items():
            patch.setenv(name, value)
        yield TargetUnderTest("ray", cluster.left, options, integer_option="num_replicas", callers=1)


@contextmanager
def container_place(containers: Containers) -> Iterator[TargetUnderTest]:
    """A Docker daemon that holds the environments of the engines already: a deletion leaves their layers."""
    with containers.used("testing", "openvino", "pyfunc") as docker:
        options = containers.cache.options()
        pyfunc = {"lock": str(containers.cache.lock)}
        yield TargetUnderTest("container:/docker", docker.left, options, pyfunc_options=pyfunc, callers=2)


SIGNED = f"AWS4-HMAC-SHA256 Credential=a/20260101/{REGION}/sagemaker/aws4_request, SignedHeaders=host, Signature=b"


@contextmanager
def sagemaker_place(account: Account) -> Iterator[TargetUnderTest]:
    """The emulator, whose containers are processes of ours: a bundle goes to S3 and comes from there."""
    with logged_in():
        options = {**account.options(EMPTY), "bundle_in": "s3"}
        more = {"callers": 2, "headers": {"Authorization": SIGNED}, "names_bundle": False}
        yield TargetUnderTest(account.uri, account.left, options, integer_option="instance_count", **more)


def left_of_local(data: Path) -> list[str]:
    """Files below the target's folder, and processes."""
    files = [str(path) for path in sorted((data / "local").rglob("*"))]
    return files + [f"process {pid}" for pid in processes_in(data)]


def processes_in(data: Path) -> list[int]:
    """Those of local deployments whose data folder is `data`; one that has ended and waits for its parent is none."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = folder.joinpath("environ").read_bytes().split(b"\0")
            command = folder.joinpath("cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if f"LIKEWISE_DATA_HOME={data}".encode() in environment and b"likewise.targets.local" in command:
            found.append(int(folder.name))
    return found
