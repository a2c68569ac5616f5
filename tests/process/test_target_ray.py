"""The target `ray` on a real cluster: routes, failures, updates and kills under load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tests.support.processes import alive, children
from tests.support.ray.callers import callers
from tests.support.ray.cluster import RayCluster
from tests.support.ray.deployments import (
    ONE_TRY,
    POISON,
    SMALL,
    answer_of,
    broken,
    delete,
    deployed,
    names,
    pids,
    put,
    shipped,
)
from tests.support.waiting import until

from likewise.core.errors import AlreadyDeployed, DeployFailed, NotDeployed, TargetUnavailable, WrongUsage
from likewise.core.option_fields import as_json
from likewise.core.spec import ModelSpec
from likewise.targets.base import Receipt
from likewise.targets.ray.ray_options import RayOptions
from likewise.targets.ray.target import RayTarget

pytest_plugins = ("tests.support.ray.fixtures",)
pytestmark = pytest.mark.xdist_group("ray")
JSON = "application/json"


@pytest.fixture(scope="module")
def remote(ray_cluster: RayCluster, ray_target: RayTarget) -> RayTarget:
    """The same cluster by its client port."""
    return RayTarget(f"ray-serve://{ray_cluster.client}")


@pytest.fixture(scope="module")
def book(remote: RayTarget, ray_target: RayTarget, ray_models: dict[int, ModelSpec]) -> Iterator[Receipt]:
    """A deployment of version 1, made by the client port; every test leaves it as it was."""
    with deployed(remote, "book-model", ray_models[1]) as receipt:
        yield receipt


# --- a deployment that stands ----------------------------------------------------------------------------------------


def test_the_server_stands_behind_the_prefix(
    ray_target: RayTarget, book: Receipt, ray_models: dict[int, ModelSpec], ray_cluster: RayCluster
) -> None:
    url = book.output("url")
    assert url == f"{ray_cluster.url}/book-model"
    body = {"dataframe_split": {"columns": ["text"], "data": [["good"], ["bad"]]}}
    for path in ("", "/", "/invocations"):
        answer = httpx.post(url + path, json=body, headers={"X-Request-Id": "abc"}, timeout=60)
        assert answer.json() == {"predictions": ["1:GOOD", "1:BAD"]}
        assert answer.headers["X-Likewise-Bundle"] == ray_models[1].digest
        assert answer.headers["X-Likewise-Engine"] == "testing/native"
        assert answer.headers["X-Request-Id"] == "abc"
    pages = ("/openapi.json", "/docs", "/docs/start.js", "/", "")
    for path in ("/ready", "/ping", "/version", "/metrics", "/v2/health/ready", *pages):
        assert httpx.get(url + path).status_code == 200, path
    assert f"{url}/invocations" in httpx.get(url).text
    assert httpx.get(url + "/nothing").json()["error_code"] == "ENDPOINT_NOT_FOUND"
    refused = httpx.post(url, json={"inputs": [{"other": 1}]})
    assert (refused.status_code, refused.headers["X-Likewise-Bundle"]) == (400, ray_models[1].digest)
    answered = ray_target.predict(book, b'{"inputs": ["x"]}', JSON)
    assert (answered.status, answered.body) == (200, b'{"predictions":["1:X"]}')
    assert ray_target.predict(book, json.dumps({"inputs": [POISON]}).encode(), JSON).status == 422


def test_both_ports_show_the_same(
    ray_target: RayTarget, remote: RayTarget, book: Receipt, ray_models: dict[int, ModelSpec], ray_cluster: RayCluster
) -> None:
    assert names(ray_target) == names(remote) == ["book-model"]
    [found] = ray_target.found()
    assert (found.model, found.output("url")) == (ray_models[1], f"{ray_cluster.url}/book-model")
    assert ray_target.status(found).state == remote.status(book).state == "ready"


def test_the_same_plan_again_changes_nothing_and_others_are_refused(
    ray_target: RayTarget, book: Receipt, ray_models: dict[int, ModelSpec]
) -> None:
    before = pids(ray_target, book)
    again = put(ray_target, "book-model", ray_models[1])
    assert again.outputs == book.outputs  # a run that was cut off goes on, and finds it done
    assert pids(ray_target, book) == before
    with pytest.raises(AlreadyDeployed, match="'book-model' is deployed"):
        put(ray_target, "book-model", ray_models[2])
    with pytest.raises(AlreadyDeployed, match=r"'likewise-book-model' answers at /book-model"):
        put(ray_target, "two", ray_models[2], replace(SMALL, route_prefix="/book-model"))


def test_it_answers_at_the_root_where_that_is_asked_for(
    ray_target: RayTarget, book: Receipt, ray_models: dict[int, ModelSpec]
) -> None:
    at_root = put(ray_target, "book-model", ray_models[1], replace(SMALL, route_prefix="/"), book)
    url = at_root.output("url")
    assert not url.endswith("/")
    for path in ("", "/", "/invocations"):
        assert answer_of(url + path, "a") == ["1:A"]
    assert ray_target.predict(at_root, b'{"inputs": ["x"]}', JSON).status == 200
    assert put(ray_target, "book-model", ray_models[1], SMALL, at_root).outputs == book.outputs


def test_a_killed_replica_costs_what_it_held(
    ray_target: RayTarget, book: Receipt, ray_models: dict[int, ModelSpec]
) -> None:
    """And comes back from what the cluster keeps: neither the driver nor the bundle's folder is there any more."""
    folder = ray_models[1].folder
    two = put(ray_target, "book-model", ray_models[1], replace(SMALL, num_replicas=2), book)
    with moved_away(folder), callers(book.output("url"), 8) as asking:
        asking.wait_for(1)
        victim, other = pids(ray_target, two)
        os.kill(victim, signal.SIGKILL)
        asking.wait_for(1, 50)
        until(lambda: len(now := pids(ray_target, two)) == 2 and victim not in now)
        asking.wait_for(1, 50)
    assert other in pids(ray_target, two)
    assert len(asking.failures) <= asking.count
    put(ray_target, "book-model", ray_models[1], SMALL, two)


@contextmanager
def moved_away(folder: Path) -> Iterator[None]:
    away = folder.rename(folder.with_name("away"))
    try:
        yield
    finally:
        away.rename(folder)


# --- others ----------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_gone_and_may_be_deleted(
    ray_target: RayTarget, ray_cluster: RayCluster, ray_models: dict[int, ModelSpec]
) -> None:
    outputs = {"run": {"url": f"{ray_cluster.url}/nobody"}}
    receipt = Receipt(ray_target.uri, "nobody", ray_models[1], as_json(SMALL), outputs, "", "")
    assert ray_target.status(receipt).state == "gone"
    with pytest.raises(NotDeployed, match="'nobody'"):
        ray_target.predict(receipt, b'{"inputs": ["x"]}', JSON)
    for _ in range(2):
        delete(ray_target, "nobody")


def test_what_is_missing_is_a_finding_and_no_hang(
    ray_target: RayTarget, ray_models: dict[int, ModelSpec], ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (offer,) = ray_target.check(ray_models[1], SMALL)
    assert ("Python proxy" in offer.cause, offer.fatal) == (True, False)
    (many,) = ray_target.check(ray_models[1], RayOptions(num_replicas=50))
    assert "50 replicas with 1 CPU each need 50 CPU, and " in many.cause
    (large,) = ray_target.check(ray_models[1], RayOptions(ray_actor_options={"num_cpus": 64}))
    assert f"no node of the Ray cluster has more than {ray_cluster.cpus}" in large.cause
    (none,) = ray_target.check(ray_models[1], RayOptions(ray_actor_options={"num_gpus": 0.5}))
    assert "a replica needs 0.5 GPU" in none.cause
    waiting = ray_target.check(ray_models[1], RayOptions(num_replicas=50, wait_for_capacity=True))
    assert [each.fatal for each in waiting] == [False]
    (nobody,) = RayTarget("ray-serve://127.0.0.1:9").check(ray_models[1], SMALL)
    assert "nothing answers at ray://127.0.0.1:9" in nobody.cause
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("RAY_ADDRESS", "127.0.0.1:9")
        with pytest.raises(TargetUnavailable, match="nothing answers"):
            RayTarget("ray").found()


NEVER_READY = replace(SMALL, num_replicas=2, ray_actor_options={"num_cpus": 7}, timeout_s=500)


def test_too_few_cpus_end_with_what_is_lacking(ray_target: RayTarget, ray_models: dict[int, ModelSpec]) -> None:
    run = shipped(ray_target, "wide", ray_models[1], replace(NEVER_READY, timeout_s=2))
    with pytest.raises(DeployFailed, match=r"not ready on Ray after 2 s.*each needs \{'CPU': 7.0\}"):
        ray_target.do("run", run)
    ray_target.undo("run", run)
    assert "wide" not in names(ray_target)


RUN = "import json, sys; from likewise.targets.ray.target import RayTarget; "
RUN += "RayTarget('ray-serve').do('run', json.load(sys.stdin))"


def test_a_killed_command_leaves_no_process(ray_target: RayTarget, ray_models: dict[int, ModelSpec]) -> None:
    """Else another command would find the deployment changing under its hands."""
    params = shipped(ray_target, "cut", ray_models[1], NEVER_READY)
    with subprocess.Popen([sys.executable, "-c", RUN], stdin=subprocess.PIPE, text=True) as command:
        assert command.stdin is not None
        json.dump(params, command.stdin)
        command.stdin.close()
        until(lambda: "cut" in names(ray_target) or command.poll() is not None)
        agents = children(command.pid, "likewise.targets.ray.agent")
        assert agents
        command.kill()
    until(lambda: not any(map(alive, agents)))
    delete(ray_target, "cut")


def test_options_that_ray_refuses_are_wrong_usage(ray_target: RayTarget, ray_models: dict[int, ModelSpec]) -> None:
    with pytest.raises(WrongUsage, match="has no 'min_replica'") as raised:
        put(ray_target, "odd", ray_models[1], replace(SMALL, autoscaling_config={"min_replica": 1}))
    assert "did you mean 'min_replicas'?" in raised.value.remedy
    with pytest.raises(WrongUsage, match="Ray refuses the options"):
        put(ray_target, "odd", ray_models[1], replace(SMALL, ray_actor_options={"num_cpu": 1}))


def test_a_broken_model_is_named_and_taken_back(ray_target: RayTarget, tmp_path: Path) -> None:
    ship, _ = ray_target.plan("create", "broken", model := broken(tmp_path), ONE_TRY, None)
    run = shipped(ray_target, "broken", model, ONE_TRY)
    with pytest.raises(DeployFailed, match="these weights are broken"):
        ray_target.do("run", run)
    for _ in range(2):
        ray_target.undo("run", run)
        ray_target.undo("ship", ship.params)
    assert "broken" not in names(ray_target)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_many_updates_under_load_fail_nobody(ray_target: RayTarget, ray_models: dict[int, ModelSpec]) -> None:
    with deployed(ray_target, "moving", ray_models[1]) as receipt, callers(receipt.output("url")) as asking:
        asking.wait_for(1)
        for number in range(5):
            version = 2 - number % 2
            receipt = put(ray_target, "moving", ray_models[version], current=receipt)
            asking.wait_for(version)
            assert asking.failures == []


@pytest.mark.long
def test_a_broken_update_is_seen_by_nobody(
    ray_target: RayTarget, ray_models: dict[int, ModelSpec], tmp_path: Path
) -> None:
    with deployed(ray_target, "steady", ray_models[1]) as receipt:
        with callers(receipt.output("url")) as asking:
            run = shipped(ray_target, "steady", broken(tmp_path), ONE_TRY, receipt)
            with pytest.raises(DeployFailed, match="these weights are broken"):
                ray_target.do("run", run)
            asking.wait_for(1)
            ray_target.undo("run", run)
            asking.wait_for(1)
        assert asking.failures == []
        status = ray_target.status(receipt)
        assert (status.state, status.bundle) == ("ready", ray_models[1].digest)
