"""The emulated SageMaker with real containers: an image is pulled from a real registry and started isolated."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.support.aws.account import Account
from tests.support.aws.api import Api
from tests.support.containers.daemon import podman
from tests.support.containers.shared import Containers
from tests.support.processes import run
from tests.support.waiting import until

from likewise.bundles.open import open_bundle
from likewise.core.spec import ModelSpec
from likewise.images.build import ImageOptions, build_image
from likewise.images.push import push_image
from likewise.targets.sagemaker.emulator import ContainerRunner, Emulator, rehearsal
from likewise.testing.models import upper_bundle

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("containers")]
pytest_plugins = ("tests.support.containers.fixtures",)
REQUIRE_ISOLATION = """
    import errno, socket
    for refused, act in (
        (errno.EROFS, lambda: open("/written", "w")),
        (errno.ENETUNREACH, lambda: socket.create_connection(("192.0.2.1", 9), 5)),
    ):
        try:
            act()
        except OSError as error:
            if error.errno != refused:
                raise
        else:
            raise ValueError("this container is not isolated")
""".strip()


@pytest.fixture(scope="module", params=["docker", pytest.param("podman", marks=pytest.mark.long)])
def program(request: pytest.FixtureRequest, containers: Containers) -> Iterator[tuple[str, ...]]:
    """The command of a container engine; Docker has the base image already."""
    if request.param == "docker":
        with containers.used("testing") as docker:
            yield docker.program
            docker.remove_images()
    else:
        with podman() as env, containers.used(), pytest.MonkeyPatch.context() as patch:
            for name in ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF"):
                patch.setenv(name, env[name])
            yield ("podman",)


@pytest.fixture(scope="module")
def image(containers: Containers, registry_address: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The repository of an image whose model only loads if the container cannot write and has no network."""
    bundle = open_bundle(upper_bundle(tmp_path_factory.mktemp("bundle") / "upper", "c:", loading=REQUIRE_ISOLATION))
    with containers.used():
        store, options = containers.cache.store, ImageOptions(base=str(containers.cache.base))
        containers.cache.environment("testing")
        build_image(bundle, "isolated:1", ModelSpec(bundle.digest, bundle.path, trust=True), options, store=store)
        push_image("isolated:1", f"{registry_address}/team/upper:1", store=store, report=lambda _: None)
    return "team/upper"


@pytest.fixture(scope="module")
def api(program: tuple[str, ...], image: str, registry_address: str) -> Iterator[Api]:
    runner = ContainerRunner(program)
    assert (runner.cautions == ()) == (os.geteuid() == 0)
    with rehearsal(Emulator(runner, registry_address)) as emulator:
        yield Api(Account(emulator, "us-east-1"))
    assert run([*program, "ps", "--all", "--quiet"]).stdout == ""


@contextmanager
def repository(api: Api, name: str) -> Iterator[str]:
    """Create a repository and yield its URI in ECR."""
    created = api.client("ecr").create_repository(repositoryName=name)["repository"]
    yield created["repositoryUri"]
    api.client("ecr").delete_repository(repositoryName=name, force=True)


def test_an_image_is_pulled_and_its_isolated_container_serves_requests(api: Api, image: str) -> None:
    with repository(api, image) as uri:
        (details,) = api.client("ecr").describe_images(repositoryName=image)["imageDetails"]
        assert details["imageTags"] == ["1"]
        api.model("real", f"{uri}:1")
        api.config("real")
        description = api.endpoint("real")
        assert description["EndpointStatus"] == "InService", description["FailureReason"]
        assert json.loads(api.invoke("real")["Body"]) == {"predictions": ["c:A"]}
        until(lambda: any("ready at" in line for line in api.log("real")))  # logged shortly after it is ready
        api.delete("real")
        assert any("ready at" in line for line in api.log("real"))


def test_a_missing_image_fails_the_endpoint(api: Api) -> None:
    with repository(api, "team/nowhere") as uri:
        api.model("nowhere", f"{uri}:1")
        api.config("nowhere")
        description = api.endpoint("nowhere")
        assert description["EndpointStatus"] == "Failed"
        assert "cannot be pulled" in description["FailureReason"]


def test_the_failure_reason_contains_the_log_of_a_container_that_exits(api: Api, image: str) -> None:
    with repository(api, image) as uri:
        api.model("untrusted", f"{uri}:1", Environment={"LIKEWISE_TRUST": "false"})
        api.config("untrusted")
        description = api.endpoint("untrusted")
        assert description["EndpointStatus"] == "Failed"
        assert "CODE_NOT_TRUSTED" in description["FailureReason"]
