"""Plans carried out on a target that is a set of things: finished, taken back, cut off and gone on with."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likewise.core.errors import Busy, DeployFailed, OutputRefused
from likewise.core.spec import ModelSpec
from likewise.receipts import Receipts
from likewise.targets.apply import apply, take_back
from likewise.targets.base import Finding, Plan, PlanStep, Receipt, Verb, output_of

MODEL = ModelSpec("sha256:ab", Path("/bundle"), "models:/m/1")


class Killed(BaseException):
    """As SIGKILL: nobody cleans up."""


@dataclass(frozen=True)
class NoOptions:
    """None."""


@dataclass
class World:
    """A place that holds things. stop: the step at which `error` strikes, before or after its thing is there."""

    Options: ClassVar[type[Any]] = NoOptions
    uri: str = "world"
    things: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    stop: str = ""
    error: BaseException | None = None
    after: bool = False

    def check(self, model: ModelSpec, options: Any) -> Sequence[Finding]:
        return ()

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: Any, current: Receipt | None
    ) -> Sequence[PlanStep]:
        return ()

    def do(self, action: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        strikes = self.error is not None and action == self.stop
        if not (strikes and not self.after):
            self.things.add(action)
            self.done.append(action)
        if strikes:
            assert self.error is not None
            raise self.error
        return {"made": f"{action} of {params.get('of', 'nothing')}"}

    def undo(self, action: str, params: Mapping[str, Any]) -> None:
        self.things.discard(action)


def plan_of(*actions: str, verb: Verb = "create", model: ModelSpec | None = MODEL) -> Plan:
    """A chain: each step takes what the one before it gave."""
    steps = [
        PlanStep(a, a, f"makes {a}", {"of": output_of(before, "made")} if before else {})
        for before, a in zip(["", *actions], actions, strict=False)
    ]
    return Plan("world", "one", verb, model, {"size": 1}, tuple(steps))


def fresh(folder: Path) -> Receipts:
    fresh.count += 1  # type: ignore[attr-defined]
    return Receipts(folder / f"{fresh.count}" / "receipts.db")  # type: ignore[attr-defined]


fresh.count = 0  # type: ignore[attr-defined]
actions = st.lists(st.sampled_from("abcdef"), min_size=1, unique=True)
anything = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@anything
@given(actions)
def test_each_step_gets_what_the_one_before_gave(tmp_path: Path, some: list[str]) -> None:
    world, receipts = World(), fresh(tmp_path)
    receipt = apply(plan_of(*some), world, receipts)
    assert receipt is not None
    assert world.done == some
    expected = "nothing"
    for action in some:
        expected = f"{action} of {expected}"
        assert receipt.outputs[action] == {"made": expected}
    assert receipt.output("made") == expected
    assert Receipt.from_dict(receipts.get("world", "one") or {}) == receipt
    assert receipts.unfinished("world", "one") is None


@anything
@given(actions, st.data(), st.booleans())
def test_a_step_that_fails_leaves_nothing_behind(
    tmp_path: Path, some: list[str], data: st.DataObject, after: bool
) -> None:
    receipts = fresh(tmp_path)
    world = World(
        stop=data.draw(st.sampled_from(some)), error=DeployFailed("it does not", remedy="give up"), after=after
    )
    with pytest.raises(DeployFailed, match="it does not"):
        apply(plan_of(*some), world, receipts)
    assert world.things == set()
    assert receipts.get("world", "one") is None
    assert receipts.unfinished("world", "one") is None


@anything
@given(actions, st.data(), st.booleans())
def test_a_killed_run_is_finished_by_the_same_plan(
    tmp_path: Path, some: list[str], data: st.DataObject, after: bool
) -> None:
    receipts = fresh(tmp_path)
    world = World(stop=data.draw(st.sampled_from(some)), error=Killed(), after=after)
    with pytest.raises(Killed):
        apply(plan_of(*some), world, receipts)
    assert receipts.get("world", "one") is None
    assert receipts.unfinished("world", "one") is not None
    world.error = None
    assert apply(plan_of(*some), world, receipts) is not None
    assert world.things == set(some)


@anything
@given(actions, st.data(), st.booleans())
def test_a_killed_run_is_taken_back_by_another_plan(
    tmp_path: Path, some: list[str], data: st.DataObject, after: bool
) -> None:
    receipts = fresh(tmp_path)
    world = World(stop=data.draw(st.sampled_from(some)), error=Killed(), after=after)
    with pytest.raises(Killed):
        apply(plan_of(*some), world, receipts)
    world.error = None
    assert apply(plan_of("z"), world, receipts) is not None
    assert world.things == {"z"}


def test_what_was_begun_can_be_taken_back_alone(tmp_path: Path) -> None:
    receipts, world = Receipts(tmp_path / "r.db"), World(stop="b", error=Killed(), after=True)
    with pytest.raises(Killed):
        apply(plan_of("a", "b"), world, receipts)
    take_back(world, "one", receipts)
    assert world.things == set()
    assert receipts.unfinished("world", "one") is None
    take_back(world, "one", receipts)  # nothing is begun: nothing happens


def test_an_update_remembers_what_was_before_and_a_failed_one_changes_no_receipt(tmp_path: Path) -> None:
    receipts, world = Receipts(tmp_path / "r.db"), World()
    first = apply(plan_of("a"), world, receipts)
    other = ModelSpec("sha256:cd", Path("/other"), "models:/m/2")
    second = apply(plan_of("a", "b", verb="update", model=other), world, receipts)
    assert first is not None
    assert second is not None
    assert second.previous == {"model": MODEL.as_dict(), "options": {"size": 1}}
    assert second.created == first.created
    again = apply(plan_of("a", "b", verb="update", model=other), world, receipts)
    assert again is not None
    assert again.previous == second.previous  # mending what stands is no new version
    world.stop, world.error = "c", DeployFailed("no", remedy="no")
    with pytest.raises(DeployFailed):
        apply(plan_of("c", verb="update"), world, receipts)
    assert Receipt.from_dict(receipts.get("world", "one") or {}) == again


def test_a_deletion_ends_the_receipt_and_a_failed_one_does_not(tmp_path: Path) -> None:
    receipts, world = Receipts(tmp_path / "r.db"), World()
    apply(plan_of("a"), world, receipts)
    world.stop, world.error = "gone", DeployFailed("no", remedy="no")
    with pytest.raises(DeployFailed):
        apply(plan_of("gone", verb="delete", model=None), world, receipts)
    assert receipts.get("world", "one") is not None
    world.error = None
    assert apply(plan_of("gone", verb="delete", model=None), world, receipts) is None
    assert receipts.all() == []


def test_of_two_that_change_one_deployment_one_is_told_to_wait(tmp_path: Path) -> None:
    receipts, inside, leave = Receipts(tmp_path / "r.db"), threading.Event(), threading.Event()

    def hold(_: PlanStep) -> None:
        inside.set()
        assert leave.wait(30)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(apply, plan_of("a"), World(), receipts, hold)
        assert inside.wait(30)
        try:
            with pytest.raises(Busy, match="one"):
                apply(plan_of("b"), World(), receipts)
        finally:
            leave.set()
        assert first.result() is not None


def test_a_plan_and_its_key_survive_json() -> None:
    import json

    plan = plan_of("a", "b")
    again = Plan.from_dict(json.loads(json.dumps(plan.as_dict())))
    assert again == plan
    assert again.key == plan.key
    assert plan_of("a").key != plan.key


def test_a_file_that_is_no_store_is_told(tmp_path: Path) -> None:
    path = tmp_path / "receipts.db"
    path.write_text("this is not a database, and long enough to be looked at as one" * 30)
    with pytest.raises(OutputRefused, match=r"receipts\.db"):
        Receipts(path).all()
