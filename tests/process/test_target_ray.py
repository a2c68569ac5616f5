"""The target `ray` on a real cluster: routes, failures, updates and kills under load."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tests.process.ray_cluster import RayCluster, ray_cluster
from tests.process.ray_room import SMALL, callers, delete, filled, put, version_of, versioned
from tests.support.spark.cluster import children, command_of

from likewise.core.errors import AlreadyDeployed, DeployFailed, NotDeployed, TargetUnavailable, WrongUsage
from likewise.targets.base import Model, Receipt
from likewise.targets.ray.options import RayOptions
from likewise.targets.ray.target import RayTarget

pytest_plugins = ("tests.process.ray_fixtures",)
JSON = "application/json"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Model]:
    folder = tmp_path_factory.mktemp("models")
    return {version: versioned(folder, version) for version in (1, 2)}


def names(target: RayTarget) -> list[str]:
    return [each.name for each in target.found()]


def pids(target: RayTarget, receipt: Receipt) -> list[int]:
    return [each["pid"] for each in target.status(receipt).details["replicas"] if each["state"] == "RUNNING"]


def test_the_server_stands_behind_the_prefix(target: RayTarget, models: dict[int, Model], cluster: RayCluster) -> None:
    receipt = put(target, "book-model", models[1])
    url = receipt.output("url")
    assert url == f"{cluster.url}/book-model"
    body = {"dataframe_split": {"columns": ["text"], "data": [["good"], ["bad"]]}}
    for path in ("", "/", "/invocations"):
        answer = httpx.post(url + path, json=body, headers={"X-Request-Id": "abc"}, timeout=60)
        assert answer.json() == {"predictions": [{"text": "GOOD", "version": 1}, {"text": "BAD", "version": 1}]}
        assert answer.headers["X-Likewise-Bundle"] == models[1].digest
        assert answer.headers["X-Likewise-Engine"] == "pyfunc/native"
        assert answer.headers["X-Request-Id"] == "abc"
    for path in ("/ready", "/ping", "/version", "/metrics", "/v2/health/ready", "/openapi.json", "/docs", "/", ""):
        assert httpx.get(url + path).status_code == 200, path
    assert f"{url}/invocations" in httpx.get(url).text
    assert httpx.get(url + "/nothing").json()["error_code"] == "ENDPOINT_NOT_FOUND"
    refused = httpx.post(url, json={"inputs": [{"other": 1}]})
    assert (refused.status_code, refused.headers["X-Likewise-Bundle"]) == (400, models[1].digest)
    said = target.predict(receipt, b'{"inputs": ["x"]}', JSON)
    assert (said.status, said.body) == (200, b'{"predictions":[{"text":"X","version":1}]}')
    assert target.predict(receipt, b'{"inputs": ["poison"]}', JSON).status == 422


def test_a_deployment_is_made_once_and_deleted_once(target: RayTarget, models: dict[int, Model]) -> None:
    receipt = put(target, "one", models[1])
    assert (target.status(receipt).state, names(target)) == ("ready", ["one"])
    before = pids(target, receipt)
    assert put(target, "one", models[1]).outputs == receipt.outputs  # a run that was cut off goes on, and finds it done
    assert pids(target, receipt) == before
    with pytest.raises(AlreadyDeployed, match="'one' is deployed"):
        put(target, "one", models[2])
    with pytest.raises(AlreadyDeployed, match=r"'likewise-one' answers at /one"):
        put(target, "two", models[2], replace(SMALL, route_prefix="/one"))
    for _ in range(2):
        delete(target, "one")
    assert target.status(receipt).state == "gone"
    with pytest.raises(NotDeployed, match="'one'"):
        target.predict(receipt, b'{"inputs": ["x"]}', JSON)


def test_it_answers_at_the_root_where_that_is_asked_for(target: RayTarget, models: dict[int, Model]) -> None:
    receipt = put(target, "root", models[1], replace(SMALL, route_prefix="/"))
    url = receipt.output("url")
    assert not url.endswith("/")
    for path in ("", "/", "/invocations"):
        assert version_of(httpx.post(url + path, json={"inputs": ["a"]})) == 1
    assert target.predict(receipt, b'{"inputs": ["x"]}', JSON).status == 200
    delete(target, "root")


def test_what_is_missing_is_a_finding_and_no_hang(
    target: RayTarget, models: dict[int, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [each for each in target.check(models[1], SMALL) if each.fatal] == []
    (many,) = target.check(models[1], RayOptions(num_replicas=50))
    assert "50 replicas with 1 CPU each need 50 CPU, and 4 are free" in many.cause
    (large,) = target.check(models[1], RayOptions(ray_actor_options={"num_cpus": 64}))
    assert "no node of the Ray cluster has more than 4" in large.cause
    (none,) = target.check(models[1], RayOptions(ray_actor_options={"num_gpus": 0.5}))
    assert "a replica needs 0.5 GPU" in none.cause
    waiting = target.check(models[1], RayOptions(num_replicas=50, wait_for_capacity=True))
    assert [each.fatal for each in waiting] == [False]
    (nobody,) = RayTarget("ray-serve://127.0.0.1:9").check(models[1], SMALL)
    assert "nothing answers at ray://127.0.0.1:9" in nobody.cause
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("RAY_ADDRESS", "127.0.0.1:9")
        with pytest.raises(TargetUnavailable, match="nothing answers"):
            RayTarget("ray").found()


def test_too_few_cpus_end_with_what_is_lacking(target: RayTarget, models: dict[int, Model]) -> None:
    options = replace(SMALL, num_replicas=2, ray_actor_options={"num_cpus": 3}, timeout_s=8)
    with pytest.raises(DeployFailed, match=r"not ready on Ray after 8 s.*each needs \{'CPU': 3.0\}"):
        put(target, "wide", models[1], options)


WIDE = """
import json, sys
from likewise.targets.ray.session import ask
address, params = sys.argv[1], json.loads(sys.argv[2])
ask(address, "run", {**params, "address": address}, timeout_s=600)
"""


def test_who_is_killed_leaves_nobody_at_work(target: RayTarget, models: dict[int, Model], cluster: RayCluster) -> None:
    """Else another command would find the deployment changing below its hands."""
    options = replace(SMALL, num_replicas=2, ray_actor_options={"num_cpus": 3}, timeout_s=500)  # never ready
    ship, run = target.plan("create", "cut", models[1], options, None)
    params = filled(run.params, {"ship": target.do(ship.action, ship.params)})
    command = [sys.executable, "-c", WIDE, cluster.address, json.dumps(params)]
    with subprocess.Popen(command) as asker:
        while names(target) != ["cut"]:
            assert asker.poll() is None
        agents = children(asker.pid)
        assert agents
        asker.kill()
    deadline = time.monotonic() + 60
    while any("likewise.targets.ray.agent" in command_of(pid) for pid in agents):
        assert time.monotonic() < deadline, "the agent goes on"
        time.sleep(0.1)


def test_options_that_ray_refuses_are_wrong_usage(target: RayTarget, models: dict[int, Model]) -> None:
    with pytest.raises(WrongUsage, match="has no 'min_replica'") as raised:
        put(target, "odd", models[1], replace(SMALL, autoscaling_config={"min_replica": 1}))
    assert "did you mean 'min_replicas'?" in raised.value.remedy
    with pytest.raises(WrongUsage, match="Ray refuses the options"):
        put(target, "odd", models[1], replace(SMALL, ray_actor_options={"num_cpu": 1}))


def test_a_broken_model_is_named_and_taken_back(target: RayTarget, tmp_path: Path) -> None:
    broken = versioned(tmp_path, 3, "load")
    options = replace(SMALL, max_constructor_retry_count=1)
    ship, run = target.plan("create", "broken", broken, options, None)
    params = filled(run.params, {"ship": target.do(ship.action, ship.params)})
    with pytest.raises(DeployFailed, match="these weights are broken"):
        target.do(run.action, params)
    for _ in range(2):
        target.undo(run.action, params)
        target.undo(ship.action, ship.params)
    assert target.found() == []


def test_over_the_client_port(target: RayTarget, models: dict[int, Model], cluster: RayCluster) -> None:
    remote = RayTarget(f"ray-serve://{cluster.client}")
    receipt = put(remote, "far", models[1])
    assert receipt.output("url") == f"{cluster.url}/far"
    assert version_of(httpx.post(f"{cluster.url}/far", json={"inputs": ["a"]})) == 1
    assert names(target) == names(remote) == ["far"]
    [again] = target.found()
    assert (again.model, again.output("url")) == (models[1], f"{cluster.url}/far")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_updates_under_load_fail_nobody(target: RayTarget, models: dict[int, Model]) -> None:
    receipt = put(target, "moving", models[1])
    with callers(receipt.output("url")) as asking:
        asking.wait_for(1)
        for number in range(5):
            version = 2 - number % 2
            receipt = put(target, "moving", models[version], current=receipt)
            asking.wait_for(version)
            assert asking.failures == []


def test_a_broken_update_is_seen_by_nobody(target: RayTarget, models: dict[int, Model], tmp_path: Path) -> None:
    broken = versioned(tmp_path, 4, "load")
    receipt = put(target, "steady", models[1])
    with callers(receipt.output("url")) as asking:
        options = replace(SMALL, max_constructor_retry_count=1)
        ship, run = target.plan("update", "steady", broken, options, receipt)
        params = filled(run.params, {"ship": target.do(ship.action, ship.params)})
        with pytest.raises(DeployFailed, match="these weights are broken"):
            target.do(run.action, params)
        asking.wait_for(1)
        target.undo(run.action, params)
        asking.wait_for(1)
    assert asking.failures == []
    status = target.status(receipt)
    assert (status.state, status.details["bundle"]) == ("ready", models[1].digest)


def test_a_killed_replica_costs_what_it_held(target: RayTarget, tmp_path: Path) -> None:
    """And comes back from what the cluster keeps: neither the driver nor the bundle's folder is there any more."""
    model = versioned(tmp_path, 5)
    receipt = put(target, "hit", model, replace(SMALL, num_replicas=2))
    shutil.rmtree(model.folder)
    with callers(receipt.output("url"), 8) as asking:
        asking.wait_for(5)
        victim, other = pids(target, receipt)
        os.kill(victim, signal.SIGKILL)
        asking.wait_for(5, 50)
        while len(now := pids(target, receipt)) < 2 or victim in now:
            time.sleep(0.1)
        asking.wait_for(5, 50)
    assert other in now
    assert len(asking.failures) <= asking.count
