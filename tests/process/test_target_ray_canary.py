"""Canary updates on a real cluster, with callers that never stop: promoted, rolled back, cut off."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.process import ray_room
from tests.process.ray_cluster import RayCluster, ray_cluster
from tests.process.ray_room import SMALL, Callers, callers, delete, filled, put, versioned

from likewise.core.errors import DeployFailed
from likewise.core.spec import ModelSpec
from likewise.targets.base import Receipt, Status
from likewise.targets.ray.options import RayOptions
from likewise.targets.ray.target import RayTarget

pytest_plugins = ("tests.process.ray_fixtures",)
pytestmark = pytest.mark.timeout(900)

OLD, GOOD = 1, 2
FAULTY = """
    import time

    import mlflow
    import pandas as pd

    class Faulty(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            if FAULT == "hangs":
                time.sleep(3600)

        def predict(self, context, model_input, params=None):
            time.sleep(0.1 if FAULT == "slow" else 3600 if FAULT == "stuck" else 0.02)
            if FAULT == "raises":
                raise ValueError("this version is broken")
            return pd.DataFrame({"text": list(model_input["text"]), "version": VERSION})

    mlflow.models.set_model(Faulty())
"""
UPDATE = "import json, sys; from likewise.targets.ray.target import RayTarget; "
UPDATE += "RayTarget('ray-serve').do('run', json.load(sys.stdin))"
TRIED = replace(SMALL, canary=20.0, canary_s=15.0, canary_requests=60, canary_timeout_s=240.0, timeout_s=240.0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int | str, ModelSpec]:
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ray_room, "PYFUNC", FAULTY)
        good: dict[int | str, ModelSpec] = {version: versioned(folder, version) for version in (OLD, GOOD)}
        bad = {fault: versioned(folder, 3, fault) for fault in ("raises", "slow", "stuck", "hangs")}
    return good | bad


def run_of(target: RayTarget, name: str, model: ModelSpec, options: RayOptions, receipt: Receipt) -> dict[str, Any]:
    """The params of an update's last step, its bundle sent."""
    ship, run = target.plan("update", name, model, options, receipt)
    return filled(run.params, {"ship": target.do(ship.action, ship.params)})


def pids(target: RayTarget, receipt: Receipt) -> list[int]:
    return [each["pid"] for each in target.status(receipt).details["replicas"] if each["state"] == "RUNNING"]


def awaited(target: RayTarget, receipt: Receipt, word: str) -> Status:
    """The status, once its line holds `word`."""
    deadline = time.monotonic() + 60
    while word not in (seen := target.status(receipt)).about:
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)
    return seen


def require_old(asking: Callers, target: RayTarget, receipt: Receipt, old: ModelSpec) -> None:
    """The old version answers all, in the replicas that it had, and nothing tells of a canary."""
    before = asking.versions[3]
    asking.wait_for(OLD, 30)
    seen = target.status(receipt)
    assert (seen.state, seen.bundle, "canary" in seen.details) == ("ready", old.digest, False)
    assert [each.name for each in target.found()] == [receipt.name]
    assert asking.versions[3] == before
    assert asking.failures == []


def test_a_good_version_is_promoted(target: RayTarget, models: dict[int | str, ModelSpec]) -> None:
    receipt = put(target, "tried", models[OLD])
    with callers(receipt.output("url"), 2) as asking:
        asking.wait_for(OLD, 20)
        again = put(target, "tried", models[GOOD], TRIED, receipt)
        asking.wait_for(GOOD, 30)
        seen = again.output("canary")
        assert seen["outcome"] == "promoted"
        assert (seen["new"]["failed"], seen["old"]["failed"]) == (0, 0)
        assert seen["new"]["requests"] >= 20
        assert 0.02 <= seen["new"]["p50_ms"] / 1000 < 1.0
        assert asking.failures == []
        before = asking.versions[OLD]
        asking.wait_for(GOOD, 30)
        assert asking.versions[OLD] == before
    assert target.status(again).bundle == models[GOOD].digest


@pytest.mark.parametrize(
    ("fault", "why", "most"),
    [
        ("raises", r"requests failed.*this version is broken", 0),
        ("slow", r"answers took more than 2 times as long", 60),
        ("stuck", r"requests failed \(\d+ of them too late\)", 0),
    ],
)
def test_a_bad_version_is_rolled_back(
    target: RayTarget, models: dict[int | str, ModelSpec], fault: str, why: str, most: int
) -> None:
    """most: answers of it that callers may have got; none of them failed."""
    receipt = put(target, "tried", models[OLD])
    with callers(receipt.output("url"), 2) as asking:
        asking.wait_for(OLD, 20)
        before = pids(target, receipt)
        params = run_of(target, "tried", models[fault], TRIED, receipt)
        with pytest.raises(DeployFailed, match=f"(?s)was rolled back.*{why}"):
            target.do("run", params)
        target.undo("run", params)
        assert asking.versions[3] <= most
        assert asking.versions[OLD] > 10 * asking.versions[3] / TRIED.canary
        require_old(asking, target, receipt, models[OLD])
    assert pids(target, receipt) == before


def test_one_that_is_never_ready_gets_no_request(target: RayTarget, models: dict[int | str, ModelSpec]) -> None:
    receipt = put(target, "tried", models[OLD])
    with callers(receipt.output("url"), 2) as asking:
        params = run_of(target, "tried", models["hangs"], replace(TRIED, canary_timeout_s=8), receipt)
        with pytest.raises(DeployFailed, match=r"got no request: .*not ready on Ray after 8 s"):
            target.do("run", params)
        target.undo("run", params)
        require_old(asking, target, receipt, models[OLD])
        assert asking.versions[3] == 0


def test_without_a_request_it_is_promoted_and_says_so(target: RayTarget, models: dict[int | str, ModelSpec]) -> None:
    receipt = put(target, "idle", models[OLD])
    seen = put(target, "idle", models[GOOD], replace(TRIED, canary_s=2), receipt).output("canary")
    assert seen["why"].startswith("no request reached it in ")
    assert (seen["outcome"], seen["new"]["requests"]) == ("promoted", 0)


def test_a_killed_update_is_finished_by_itself_or_taken_away(
    target: RayTarget, models: dict[int | str, ModelSpec]
) -> None:
    receipt = put(target, "cut", models[OLD])
    with callers(receipt.output("url"), 2) as asking:
        params = run_of(target, "cut", models[GOOD], replace(TRIED, canary_requests=10_000), receipt)
        killed_while_watching(target, receipt, params)
        settled(asking)
        assert asking.failures == []
        assert target.do("run", params)["canary"]["outcome"] == "promoted"
        asking.wait_for(GOOD, 30)
        params = run_of(target, "cut", models[OLD], replace(TRIED, canary_requests=10_000), receipt)
        killed_while_watching(target, receipt, params)
        assert asking.failures == []
    delete(target, "cut")
    deadline = time.monotonic() + 60
    while target._ask("status", {"name": "cut~canary"})["status"] is not None:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def killed_while_watching(target: RayTarget, receipt: Receipt, params: dict[str, Any]) -> None:
    with subprocess.Popen([sys.executable, "-c", UPDATE], stdin=subprocess.PIPE) as update:
        assert update.stdin is not None
        update.stdin.write(json.dumps(params).encode())
        update.stdin.close()
        seen = awaited(target, receipt, "20 % of the requests go to a canary of ")
        assert update.poll() is None
        update.kill()
    assert (seen.state, seen.details["canary"]["bundle"]) == ("updating", params["model"]["digest"])
    assert [each.name for each in target.found()] == [receipt.name]


def settled(asking: Callers) -> None:
    """Once the old version alone answers."""
    deadline, new = time.monotonic() + 60, -1
    while asking.versions[GOOD] != new:
        assert time.monotonic() < deadline, asking.versions
        new = asking.versions[GOOD]
        asking.wait_for(OLD, 100)


def test_options_that_serve_changes_in_place_restart_nothing(
    target: RayTarget, models: dict[int | str, ModelSpec]
) -> None:
    receipt = put(target, "kept", models[OLD])
    before = pids(target, receipt)
    with callers(receipt.output("url"), 2) as asking:
        asking.wait_for(OLD, 10)
        options = replace(TRIED, num_replicas=2, max_ongoing_requests=50)
        again = put(target, "kept", models[OLD], options, receipt)
        asking.wait_for(OLD, 20)
        assert asking.failures == []
    after = pids(target, again)
    assert (set(before) <= set(after), len(after)) == (True, 2)
    assert "canary" not in again.outputs["run"]
