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
import pandas as pd
import pytest
from tests.support.processes import alive, children
from tests.support.ray.callers import callers
from tests.support.ray.cluster import RayCluster, driver
from tests.support.ray.deployments import (
    ONE_TRY,
    POISON,
    SMALL,
    broken,
    delete,
    deployed,
    names,
    pids,
    predictions_of,
    put,
    shipped,
)
from tests.support.ray.wrong_options import GET_THROUGH, WRONG
from tests.support.waiting import until

import likewise
from likewise import deployments
from likewise.core.errors import AlreadyDeployed, DeployFailed, NotDeployed, TargetUnavailable, WrongUsage
from likewise.core.option_fields import as_json, coerce
from likewise.core.spec import ModelSpec
from likewise.parity import VerifyOptions
from likewise.targets.base import Receipt
from likewise.targets.ray.ray_options import RayOptions
from likewise.targets.ray.target import RayTarget, state_of

pytest_plugins = ("tests.support.ray.fixtures",)
pytestmark = pytest.mark.xdist_group("ray")
JSON = "application/json"


@pytest.fixture(scope="module")
def remote(ray_cluster: RayCluster, ray_target: RayTarget) -> RayTarget:
    """The same cluster through its client port."""
    return RayTarget(f"ray-serve://{ray_cluster.client}")


@pytest.fixture(scope="module")
def book(remote: RayTarget, ray_target: RayTarget, ray_models: dict[int, ModelSpec]) -> Iterator[Receipt]:
    """A deployment of version 1, created through the client port; every test restores it."""
    with deployed(remote, "book-model", ray_models[1]) as receipt:
        yield receipt


def test_bundle_is_compared_on_ray(ray_target: RayTarget, ray_models: dict[int, ModelSpec], tmp_path: Path) -> None:
    before = [each.name for each in ray_target.found()]
    golden = tmp_path / "golden.csv"
    golden.write_text("text\n" + "".join(f"text {row}\n" for row in range(100)))
    options = VerifyOptions(golden=str(golden))
    [place] = likewise.verify(ray_models[1].folder, ["ray"], options=options, trust=True).places
    assert (place.where, place.verdict, place.same, place.missing) == ("ray", "agrees", 100, 0), place.error
    assert place.bundle == ray_models[1].digest
    assert [each.name for each in ray_target.found()] == before


# --- an existing deployment ------------------------------------------------------------------------------------------


def test_server_is_available_below_the_prefix(
    ray_target: RayTarget, book: Receipt, ray_models: dict[int, ModelSpec], ray_cluster: RayCluster
) -> None:
    url = book.output("url")
    assert url == f"{ray_cluster.url}/book-model"
    body = {"dataframe_split": {"columns": ["text"], "data": [["good"], ["bad"]]}}
    for path in ("", "/", "/invocations"):
        response = httpx.post(url + path, json=body, headers={"X-Request-Id": "abc"}, timeout=60)
        assert response.json() == {"predictions": ["1:GOOD", "1:BAD"]}
        assert response.headers["X-Likewise-Bundle"] == ray_models[1].digest
        assert response.headers["X-Likewise-Engine"] == "testing/native"
        assert response.headers["X-Request-Id"] == "abc"
    pages = ("/openapi.json", "/docs", "/docs/start.js", "/", "")
    for path in ("/ready", "/ping", "/version", "/metrics", "/v2/health/ready", *pages):
        assert httpx.get(url + path, follow_redirects=True).status_code == 200, path
    assert f"{url}/invocations" in httpx.get(url + "/").text
    assert httpx.get(url + "/nothing").json()["error_code"] == "ENDPOINT_NOT_FOUND"
    rejected = httpx.post(url, json={"inputs": [{"other": 1}]})
    assert (rejected.status_code, rejected.headers["X-Likewise-Bundle"]) == (400, ray_models[1].digest)
    predicted = ray_target.predict(book, b'{"inputs": ["x"]}', JSON)
    assert (predicted.status, predicted.body) == (200, b'{"predictions":["1:X"]}')
    assert ray_target.predict(book, json.dumps({"inputs": [POISON]}).encode(), JSON).status == 422


def test_both_ports_show_the_same_deployments(
    ray_target: RayTarget, remote: RayTarget, book: Receipt, ray_models: dict[int, ModelSpec], ray_cluster: RayCluster
) -> None:
    assert names(ray_target) == names(remote) == ["book-model"]
    [receipt] = ray_target.found()
    assert (receipt.model, receipt.output("url")) == (ray_models[1], f"{ray_cluster.url}/book-model")
    assert ray_target.status(receipt).state == remote.status(book).state == "ready"


def test_repeated_plan_changes_nothing_and_conflicting_plans_are_rejected(
    ray_target: RayTarget, book: Receipt, ray_models: dict[int, ModelSpec]
) -> None:
    before = pids(ray_target, book)
    again = put(ray_target, "book-model", ray_models[1])
    assert again.outputs == book.outputs  # an interrupted run resumes, and there is nothing left to do
    assert pids(ray_target, book) == before
    with pytest.raises(AlreadyDeployed, match="'book-model' is deployed"):
        put(ray_target, "book-model", ray_models[2])
    with pytest.raises(AlreadyDeployed, match=r"'likewise-book-model' already uses the route /book-model"):
        put(ray_target, "two", ray_models[2], replace(SMALL, route_prefix="/book-model"))


def test_root_route_and_capture_on_request(
    ray_target: RayTarget, book: Receipt, ray_models: dict[int, ModelSpec], tmp_path: Path
) -> None:
    options = replace(SMALL, route_prefix="/", capture=str(tmp_path / "captured"))
    at_root = put(ray_target, "book-model", ray_models[1], options, book)
    url = at_root.output("url")
    assert not url.endswith("/")
    for path in ("", "/", "/invocations"):
        assert predictions_of(url + path, "a") == ["1:A"]
    assert ray_target.predict(at_root, b'{"inputs": ["x"]}', JSON).status == 200
    assert put(ray_target, "book-model", ray_models[1], SMALL, at_root).outputs == book.outputs
    captured = pd.read_parquet(tmp_path / "captured")
    assert sorted(captured.text) == ["a", "a", "a", "x"]
    assert sorted(captured.predictions) == ['"1:A"', '"1:A"', '"1:A"', '"1:X"']


def test_killed_replica_loses_only_its_current_requests(
    ray_target: RayTarget, book: Receipt, ray_models: dict[int, ModelSpec]
) -> None:
    """The replica is restarted from the cluster's store, without the driver and the bundle's folder."""
    folder = ray_models[1].folder
    two = put(ray_target, "book-model", ray_models[1], replace(SMALL, num_replicas=2), book)
    with moved_away(folder), callers(book.output("url"), 8) as clients:
        clients.wait_for(1)
        victim, other = pids(ray_target, two)
        os.kill(victim, signal.SIGKILL)
        clients.wait_for(1, 50)
        until(lambda: len(now := pids(ray_target, two)) == 2 and victim not in now)
        clients.wait_for(1, 50)
    assert other in pids(ray_target, two)
    assert len(clients.failures) <= clients.count
    put(ray_target, "book-model", ray_models[1], SMALL, two)


@contextmanager
def moved_away(folder: Path) -> Iterator[None]:
    away = folder.rename(folder.with_name("away"))
    try:
        yield
    finally:
        away.rename(folder)


# --- other deployments and errors ------------------------------------------------------------------------------------


def test_missing_deployment_is_gone_and_may_be_deleted(
    ray_target: RayTarget, ray_cluster: RayCluster, ray_models: dict[int, ModelSpec]
) -> None:
    outputs = {"run": {"url": f"{ray_cluster.url}/missing"}}
    receipt = Receipt(ray_target.uri, "missing", ray_models[1], as_json(SMALL), outputs, "", "")
    assert ray_target.status(receipt).state == "gone"
    with pytest.raises(NotDeployed, match="'missing'"):
        ray_target.predict(receipt, b'{"inputs": ["x"]}', JSON)
    for _ in range(2):
        delete(ray_target, "missing")


def test_missing_resources_and_clusters_are_findings(
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
    (unreachable,) = RayTarget("ray-serve://127.0.0.1:9").check(ray_models[1], SMALL)
    assert "nothing is listening at ray://127.0.0.1:9" in unreachable.cause
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("RAY_ADDRESS", "127.0.0.1:9")
        with pytest.raises(TargetUnavailable, match="nothing is listening"):
            RayTarget("ray").found()


NEVER_READY = replace(SMALL, num_replicas=2, ray_actor_options={"num_cpus": 7}, timeout_s=500)


def test_missing_cpus_are_reported_after_the_timeout(ray_target: RayTarget, ray_models: dict[int, ModelSpec]) -> None:
    run = shipped(ray_target, "wide", ray_models[1], replace(NEVER_READY, timeout_s=2))
    with pytest.raises(DeployFailed, match=r"not ready on Ray after 2 s.*each needs \{'CPU': 7.0\}"):
        ray_target.do("run", run)
    ray_target.undo("run", run)
    assert "wide" not in names(ray_target)


RUN = "import json, sys; from likewise.targets.ray.target import RayTarget; "
RUN += "RayTarget('ray-serve').do('run', json.load(sys.stdin))"


def test_killed_command_leaves_no_process(ray_target: RayTarget, ray_models: dict[int, ModelSpec]) -> None:
    """Otherwise the process could change a deployment while another command works on it."""
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


BROKEN_APPLICATION = """
import sys, ray
from ray import serve
from ray.serve import api

@serve.deployment(ray_actor_options={"num_cpus": 0.1, "runtime_env": {"working_dir": "."}})
class Broken:
    pass

ray.init(address=sys.argv[1], namespace="other", logging_level="ERROR")
api.run_many([api.RunTarget(Broken.bind(), "broken", "/broken")], wait_for_applications_running=False)
print("ready", flush=True)
sys.stdin.read()
serve.delete("broken")
"""


@pytest.fixture
def broken_application(ray_target: RayTarget, ray_cluster: RayCluster) -> Iterator[None]:
    """Another user's application, for whose options Serve cannot describe any application of the cluster."""
    with driver(ray_cluster, BROKEN_APPLICATION):
        until(lambda: [state_of(each) for each in ray_target._call("others", {})] == ["failing"])
        yield
        [other] = ray_target._call("others", {})
        assert other == {"name": "broken", "url": f"{ray_cluster.url}/broken", "status": "DEPLOY_FAILED"}


def test_wrong_options_and_broken_applications_disturb_no_neighbour(
    ray_target: RayTarget, ray_models: dict[int, ModelSpec], broken_application: None
) -> None:
    """The options are rejected before anything is sent, or the deployment is rolled back; the neighbour goes on."""

    others = names(ray_target)

    def try_neighbour(neighbour: Receipt) -> None:
        assert names(ray_target) == [*others, "neighbour"]
        assert ray_target.status(neighbour).state == "ready"

    with deployed(ray_target, "neighbour", ray_models[1]) as neighbour:
        for options, cause, _ in WRONG:
            with pytest.raises(WrongUsage, match=cause):
                ray_target.check(ray_models[1], coerce(RayOptions, {**as_json(SMALL), **options}))
            try_neighbour(neighbour)
    for options, cause in GET_THROUGH:
        with deployed(ray_target, "neighbour", ray_models[1]) as neighbour:
            wrong = coerce(RayOptions, {**as_json(ONE_TRY), **options})
            assert [each for each in ray_target.check(ray_models[1], wrong) if each.fatal] == []
            run = shipped(ray_target, "wrong", ray_models[1], wrong)
            with pytest.raises(DeployFailed, match=cause):
                ray_target.do("run", run)
            *_, healthy, failed = deployments.listed("ray")
            assert (healthy.name, failed.name) == ("neighbour", "wrong")
            assert (healthy.state, failed.state) == ("ready", "failing")
            assert cause in failed.remedy
            ray_target.undo("run", run)
            try_neighbour(neighbour)
            put(ray_target, "neighbour", ray_models[1], replace(SMALL, max_queued_requests=9), neighbour)
            assert predictions_of(neighbour.output("url"), "a") == ["1:A"]


def test_broken_model_is_reported_and_rolled_back(ray_target: RayTarget, tmp_path: Path) -> None:
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
def test_many_updates_under_load_fail_no_request(ray_target: RayTarget, ray_models: dict[int, ModelSpec]) -> None:
    with deployed(ray_target, "moving", ray_models[1]) as receipt, callers(receipt.output("url")) as clients:
        clients.wait_for(1)
        for number in range(5):
            version = 2 - number % 2
            receipt = put(ray_target, "moving", ray_models[version], current=receipt)
            clients.wait_for(version)
            assert clients.failures == []


@pytest.mark.long
def test_failed_update_fails_no_request(
    ray_target: RayTarget, ray_models: dict[int, ModelSpec], tmp_path: Path
) -> None:
    with deployed(ray_target, "steady", ray_models[1]) as receipt:
        with callers(receipt.output("url")) as clients:
            run = shipped(ray_target, "steady", broken(tmp_path), ONE_TRY, receipt)
            with pytest.raises(DeployFailed, match="these weights are broken"):
                ray_target.do("run", run)
            clients.wait_for(1)
            ray_target.undo("run", run)
            clients.wait_for(1)
        assert clients.failures == []
        status = ray_target.status(receipt)
        assert (status.state, status.bundle) == ("ready", ray_models[1].digest)
