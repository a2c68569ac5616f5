"""Canary updates on a real cluster under continuous load: promoted, rolled back, interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.support.ray.callers import Callers, callers
from tests.support.ray.deployments import SMALL, deployed, names, pids, put, shipped, versioned
from tests.support.waiting import until

from likewise.core.errors import DeployFailed
from likewise.core.spec import ModelSpec
from likewise.targets.base import Receipt, Status
from likewise.targets.ray.inspection import CANARY
from likewise.targets.ray.ray_options import RayOptions
from likewise.targets.ray.target import RayTarget

pytest_plugins = ("tests.support.ray.fixtures",)
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(900)]

OLD, GOOD = 1, 2
BAD = {
    "raises": {"predicting": 'time.sleep(0.1); raise ValueError("this version is broken")'},
    "slow": {"predicting": "time.sleep(0.1)"},
    "stuck": {"predicting": "time.sleep(3600)"},
    "hangs": {"loading": "time.sleep(3600)"},
}
UPDATE = "import json, sys; from likewise.targets.ray.target import RayTarget; "
UPDATE += "RayTarget('ray-serve').do('run', json.load(sys.stdin))"
TRIED = replace(SMALL, canary=20.0, canary_s=15.0, canary_requests=20, canary_timeout_s=240.0, timeout_s=240.0)
LONG = replace(TRIED, canary_requests=10_000)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int | str, ModelSpec]:
    folder = tmp_path_factory.mktemp("models")
    good = {version: versioned(folder, version, predicting="time.sleep(0.02)") for version in (OLD, GOOD)}
    return {**good, **{fault: versioned(folder, fault, **options) for fault, options in BAD.items()}}


@pytest.fixture(scope="module")
def tried(ray_target: RayTarget, models: dict[int | str, ModelSpec]) -> Iterator[Receipt]:
    """A deployment of the old version, which every test restores."""
    with deployed(ray_target, "tried", models[OLD]) as receipt:
        yield receipt


def no_canary(target: RayTarget) -> bool:
    """Whether no canary is listed as a deployment."""
    return not any(CANARY in name for name in names(target))


def require_old(clients: Callers, target: RayTarget, receipt: Receipt, new: str) -> None:
    """The old version handles all requests, and the canary is removed."""
    clients.wait_for(OLD, 20)  # by then requests in transit to the canary have completed
    before = clients.versions[new]
    clients.wait_for(OLD, 30)
    status = target.status(receipt)
    old = receipt.model.digest
    assert (status.state, status.bundle, "canary" in status.details) == ("ready", old, False)
    assert no_canary(target)
    assert clients.versions[new] == before
    assert clients.failures == []


@pytest.mark.long
def test_good_version_is_promoted_with_and_without_requests(
    ray_target: RayTarget, tried: Receipt, models: dict[int | str, ModelSpec]
) -> None:
    with callers(tried.output("url"), 2) as clients:
        clients.wait_for(OLD, 20)
        again = put(ray_target, "tried", models[GOOD], TRIED, tried)
        clients.wait_for(GOOD, 30)
        seen = again.output("canary")
        assert seen["outcome"] == "promoted"
        assert (seen["new"]["failed"], seen["old"]["failed"]) == (0, 0)
        assert seen["new"]["requests"] >= 20
        assert 0.02 <= seen["new"]["p50_ms"] / 1000 < 1.0
        assert clients.failures == []
        before = clients.versions[str(OLD)]
        clients.wait_for(GOOD, 30)
        assert clients.versions[str(OLD)] == before
    assert ray_target.status(again).bundle == models[GOOD].digest
    seen = put(ray_target, "tried", models[OLD], replace(TRIED, canary_s=1), again).output("canary")
    assert seen["why"].startswith("it got no request in ")
    assert (seen["outcome"], seen["new"]["requests"]) == ("promoted", 0)


@pytest.mark.parametrize(
    ("fault", "reason", "most"),
    [
        ("raises", r"requests failed.*this version is broken", 0),
        pytest.param("slow", r"responses took more than 2 times as long", 60, marks=pytest.mark.long),
        pytest.param("stuck", r"requests failed \(\d+ of them too late\)", 0, marks=pytest.mark.long),
    ],
)
def test_bad_version_is_rolled_back(
    ray_target: RayTarget, tried: Receipt, models: dict[int | str, ModelSpec], fault: str, reason: str, most: int
) -> None:
    """most: the maximum number of responses from the bad version that clients may get; none of them is a failure."""
    before = pids(ray_target, tried)
    with callers(tried.output("url"), 2) as clients:
        clients.wait_for(OLD, 20)
        run = shipped(ray_target, "tried", models[fault], TRIED, tried)
        with pytest.raises(DeployFailed, match=f"(?s)was rolled back.*{reason}"):
            ray_target.do("run", run)
        ray_target.undo("run", run)
        assert clients.versions[fault] <= most
        assert clients.versions[str(OLD)] > 10 * clients.versions[fault] / TRIED.canary
        require_old(clients, ray_target, tried, fault)
    assert pids(ray_target, tried) == before


def test_version_that_is_never_ready_gets_no_request(
    ray_target: RayTarget, tried: Receipt, models: dict[int | str, ModelSpec]
) -> None:
    with callers(tried.output("url"), 2) as clients:
        run = shipped(ray_target, "tried", models["hangs"], replace(TRIED, canary_timeout_s=3), tried)
        with pytest.raises(DeployFailed, match=r"before it got any request: .*not ready on Ray after 3 s"):
            ray_target.do("run", run)
        ray_target.undo("run", run)
        require_old(clients, ray_target, tried, "hangs")
        assert clients.versions["hangs"] == 0


def test_options_that_serve_changes_in_place_restart_no_replica(
    ray_target: RayTarget, tried: Receipt, models: dict[int | str, ModelSpec]
) -> None:
    before = pids(ray_target, tried)
    with callers(tried.output("url"), 2) as clients:
        clients.wait_for(OLD, 10)
        options = replace(TRIED, num_replicas=2, max_ongoing_requests=50)
        again = put(ray_target, "tried", models[OLD], options, tried)
        clients.wait_for(OLD, 20)
        assert clients.failures == []
    after = pids(ray_target, again)
    assert (set(before) <= set(after), len(after)) == (True, 2)
    assert "canary" not in again.outputs["run"]
    put(ray_target, "tried", models[OLD], SMALL, again)


@pytest.mark.long
def test_killed_update_is_resumed_or_its_canary_removed(
    ray_target: RayTarget, models: dict[int | str, ModelSpec]
) -> None:
    with deployed(ray_target, "cut", models[OLD]) as receipt, callers(receipt.output("url"), 2) as clients:
        kill_while_watching(ray_target, receipt, models[GOOD], LONG)
        wait_until_settled(clients)
        assert clients.failures == []
        run = shipped(ray_target, "cut", models[GOOD], LONG, receipt)
        assert ray_target.do("run", run)["canary"]["outcome"] == "promoted"
        clients.wait_for(GOOD, 30)
        kill_while_watching(ray_target, receipt, models[OLD], LONG)
        assert clients.failures == []
    until(lambda: ray_target._call("status", {"name": f"cut{CANARY}"})["status"] is None)


def kill_while_watching(target: RayTarget, receipt: Receipt, model: ModelSpec, options: RayOptions) -> None:
    """Update in a process that is killed when requests go to the canary."""
    run = shipped(target, receipt.name, model, options, receipt)
    seen: list[Status] = []

    def watched() -> bool:
        seen.append(target.status(receipt))
        return "20 % of the requests go to a canary of " in seen[-1].about

    with subprocess.Popen([sys.executable, "-c", UPDATE], stdin=subprocess.PIPE, text=True) as update:
        assert update.stdin is not None
        json.dump(run, update.stdin)
        update.stdin.close()
        until(watched)
        assert update.poll() is None
        update.kill()
    assert (seen[-1].state, seen[-1].details["canary"]["bundle"]) == ("updating", model.digest)
    assert no_canary(target)


def wait_until_settled(clients: Callers) -> None:
    """Wait until only the old version responds."""

    def settled() -> bool:
        before = clients.versions[str(GOOD)]
        clients.wait_for(OLD, 100)
        return clients.versions[str(GOOD)] == before

    until(settled)
