"""The target `container` with a real Docker daemon: behaviour that the conformance suite does not cover."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.containers.daemon import Docker
from tests.support.containers.shared import Containers
from tests.support.processes import until

from likewise import deployments
from likewise.core.errors import AlreadyDeployed, DeployFailed, LikewiseError, NotDeployed, WrongUsage
from likewise.targets.base import Receipt
from likewise.testing.models import upper_bundle
from likewise.testing.targets import Callers

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("containers")]
pytest_plugins = ("tests.support.containers.fixtures",)

TO = "container:/docker"
Deploy = Callable[..., Receipt]


@pytest.fixture(scope="module")
def docker(containers: Containers) -> Iterator[Docker]:
    with containers.used("testing") as docker:
        yield docker


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upper_bundle(tmp_path_factory.mktemp("models") / "one", "1:")


@pytest.fixture
def deploy(docker: Docker, containers: Containers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deploy]:
    """`deploy` with trust; a test's deployments are deleted, and nothing of them may be left."""
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "data"))

    def deployed(model: Path, name: str, **options: str) -> Receipt:
        return deployments.deploy(model, TO, name, {**containers.cache.options(), **options}, trust=True)

    yield deployed
    for receipt in deployments.deployments(TO):
        deployments.delete(receipt.name, to=TO)
    assert docker.left() == []


def predict(name: str, *texts: str, to: str | None = None) -> object:
    response = deployments.predict(name, json.dumps({"inputs": list(texts)}).encode(), to=to)
    assert response.status == 200, response
    return json.loads(response.body)["predictions"]


def pid_of(docker: Docker, container: str) -> int:
    """The process id of the container's first process, outside the container."""
    return int(docker.inspected(container)["State"]["Pid"])


def test_container_runs_unprivileged_without_network_and_within_its_limits(
    docker: Docker, deploy: Deploy, one: Path
) -> None:
    env = json.dumps({"LIKEWISE_BODY_LIMIT_BYTES": "1000", "WEIRD": "$(id) `id`; 'x' \"y\""})
    options = {"memory": "900m", "cpus": "1.5", "isolated": "true", "user": "54321:54321", "env": env}
    receipt = deploy(one, "limits", **options)
    assert predict("limits", "a") == ["1:A"]
    assert deployments.predict("limits", b'{"inputs": ["' + b"a" * 2000 + b'"]}').status == 413
    status = deployments.status("limits")[1]
    assert (status.details["memory_limit_bytes"], status.details["restarts"]) == (900 * 1024 * 1024, 0)
    container = receipt.output("container")
    config = docker.inspected(container)["HostConfig"]
    assert (config["ReadonlyRootfs"], config["CapDrop"], config["NetworkMode"]) == (True, ["ALL"], "none")
    process = Path(f"/proc/{pid_of(docker, container)}")
    fields = dict(line.split(":\t", 1) for line in process.joinpath("status").read_text().splitlines() if ":\t" in line)
    assert (fields["Uid"].split()[0], fields["CapEff"].strip("0"), fields["NoNewPrivs"]) == ("54321", "", "1")
    assert b"WEIRD=$(id) `id`; 'x' \"y\"" in process.joinpath("environ").read_bytes().split(b"\0")


def test_killed_version_is_restarted_while_clients_wait(docker: Docker, deploy: Deploy, one: Path) -> None:
    receipt = deploy(one, "dying")
    os.kill(pid_of(docker, receipt.output("container")), signal.SIGKILL)
    assert predict("dying", "a") == ["1:A"]  # the client waits in the listener's backlog
    until(lambda: deployments.status("dying")[1].details["restarts"] == 1)
    current = deployments.status("dying")[1]
    assert current.state == "ready"
    assert current.about == "restarts since its deployment: 1, the last after exit code 137"


def test_killed_listener_container_is_restarted_and_the_version_reconnects(
    docker: Docker, deploy: Deploy, one: Path
) -> None:
    receipt = deploy(one, "listeners")
    before = docker.inspected(receipt.output("container"))["State"]["StartedAt"]
    os.kill(pid_of(docker, receipt.output("door")), signal.SIGKILL)
    until(lambda: docker.inspected(receipt.output("container"))["State"]["StartedAt"] != before)
    until(lambda: deployments.status("listeners")[1].state == "ready")
    assert predict("listeners", "a") == ["1:A"]


def test_deployment_of_another_user_can_be_listed_queried_updated_and_deleted(
    docker: Docker, deploy: Deploy, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = deploy(one, "theirs")
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "elsewhere"))
    (listed,) = deployments.deployments(TO)
    assert (listed.name, listed.model, listed.options) == ("theirs", receipt.model, receipt.options)
    assert predict("theirs", "a", to=TO) == ["1:A"]
    with pytest.raises(AlreadyDeployed, match="theirs"):
        deploy(upper_bundle(tmp_path / "two", "2:"), "theirs")
    assert predict("theirs", "a", to=TO) == ["1:A"]
    deployments.update("theirs", upper_bundle(tmp_path / "three", "3:"), to=TO, trust=True)
    assert predict("theirs", "a") == ["3:A"]
    deployments.delete("theirs")
    assert docker.left() == []
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "data"))
    deployments.delete("theirs")  # removes the receipt of the deleted deployment
    with pytest.raises(NotDeployed):
        deployments.delete("theirs")


def test_container_that_is_not_ready_in_time_is_reported_with_its_last_log_lines(
    docker: Docker, deploy: Deploy, tmp_path: Path
) -> None:
    loading = 'print("stuck here", flush=True); time.sleep(600)'
    with pytest.raises(DeployFailed, match="not ready after 8 s") as failed:
        deploy(upper_bundle(tmp_path / "slow", "x", loading=loading), "slow", start_timeout_s="8", stop_timeout_s="1")
    assert "stuck here" in failed.value.cause
    assert docker.left() == []


def test_port_in_use_is_reported_and_leaves_nothing(docker: Docker, deploy: Deploy, one: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(LikewiseError, match="in use") as failed:
            deploy(one, "port", port=str(taken.getsockname()[1]))
        assert "port" in failed.value.remedy
    assert docker.left() == []


def test_existing_image_is_used_and_kept(docker: Docker, deploy: Deploy, one: Path, tmp_path: Path) -> None:
    deploy(one, "builder")
    docker("tag", "likewise-deployed:builder", "mine:1")
    with pytest.raises(WrongUsage, match="contains the bundle"):
        deploy(upper_bundle(tmp_path / "two", "2:"), "other", image="mine:1")
    deploy(one, "taker", image="mine:1")
    deployments.delete("builder")
    assert predict("taker", "a") == ["1:A"]
    deployments.delete("taker")
    assert docker.left() == [f"image {docker('image', 'ls', '--quiet', 'mine:1')}"]
    docker("image", "rm", "mine:1")


def test_deletion_under_load_completes_every_accepted_request(docker: Docker, deploy: Deploy, tmp_path: Path) -> None:
    """A client's connection is refused or its request completed; no connection is dropped."""
    receipt = deploy(upper_bundle(tmp_path / "slow", "1:", predicting="time.sleep(0.05)"), "loaded")
    with Callers(receipt.output("url"), 2) as callers:
        callers.until_answered(20)
        deleting = threading.Thread(target=deployments.delete, args=("loaded",))
        deleting.start()
        deleting.join()
    assert callers.answered >= 20
    assert [each for each in callers.wrong if "ConnectionRefusedError" not in each] == []
