"""Plans executed on a fake target, which is a set of things: completed, rolled back, interrupted and resumed."""

from __future__ import annotations

import sqlite3
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
from likewise.targets.apply import apply, roll_back
from likewise.targets.base import Finding, Plan, PlanStep, Receipt, Verb, output_of
from likewise.targets.history import history_of

MODEL = ModelSpec("sha256:ab", Path("/bundle"), "models:/m/1")


class Killed(BaseException):
    """Stands for SIGKILL: it is not caught, so there is no cleanup."""


@dataclass(frozen=True)
class NoOptions:
    """Options of a target that has none."""


@dataclass
class World:
    """A fake target: each action adds a thing.

    fail_at: the action that raises `error`; after: whether it raises after its thing was added, or before.
    """

    Options: ClassVar[type[Any]] = NoOptions
    uri: str = "world"
    things: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    fail_at: str = ""
    error: BaseException | None = None
    after: bool = False

    def check(self, model: ModelSpec, options: Any) -> Sequence[Finding]:
        return ()

    def plan(
        self, verb: Verb, name: str, model: ModelSpec | None, options: Any, current: Receipt | None
    ) -> Sequence[PlanStep]:
        return ()

    def do(self, action: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        fails = self.error is not None and action == self.fail_at
        if not (fails and not self.after):
            self.things.add(action)
            self.done.append(action)
        if fails:
            assert self.error is not None
            raise self.error
        return {"made": f"{action} of {params.get('of', 'nothing')}"}

    def undo(self, action: str, params: Mapping[str, Any]) -> None:
        self.things.discard(action)


def plan_of(*actions: str, verb: Verb = "create", model: ModelSpec | None = MODEL) -> Plan:
    """A chain of steps, each of which refers to the output of the previous one."""
    steps = [
        PlanStep(a, a, f"makes {a}", {"of": output_of(before, "made")} if before else {})
        for before, a in zip(["", *actions], actions, strict=False)
    ]
    return Plan("world", "one", verb, model, {"size": 1}, tuple(steps))


def new_receipts(folder: Path) -> Receipts:
    new_receipts.count += 1  # type: ignore[attr-defined]
    return Receipts(folder / f"{new_receipts.count}" / "receipts.db")  # type: ignore[attr-defined]


new_receipts.count = 0  # type: ignore[attr-defined]
actions = st.lists(st.sampled_from("abcdef"), min_size=1, unique=True)
anything = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@anything
@given(actions)
def test_each_step_receives_the_output_of_the_previous_one(tmp_path: Path, some: list[str]) -> None:
    world, receipts = World(), new_receipts(tmp_path)
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
def test_failed_step_leaves_nothing_behind(tmp_path: Path, some: list[str], data: st.DataObject, after: bool) -> None:
    receipts = new_receipts(tmp_path)
    world = World(
        fail_at=data.draw(st.sampled_from(some)), error=DeployFailed("it failed", remedy="give up"), after=after
    )
    with pytest.raises(DeployFailed, match="it failed"):
        apply(plan_of(*some), world, receipts)
    assert world.things == set()
    assert receipts.get("world", "one") is None
    assert receipts.unfinished("world", "one") is None


@anything
@given(actions, st.data(), st.booleans())
def test_interrupted_run_is_resumed_by_the_same_plan(
    tmp_path: Path, some: list[str], data: st.DataObject, after: bool
) -> None:
    receipts = new_receipts(tmp_path)
    world = World(fail_at=data.draw(st.sampled_from(some)), error=Killed(), after=after)
    with pytest.raises(Killed):
        apply(plan_of(*some), world, receipts)
    assert receipts.get("world", "one") is None
    assert receipts.unfinished("world", "one") is not None
    world.error = None
    assert apply(plan_of(*some), world, receipts) is not None
    assert world.things == set(some)


@anything
@given(actions, st.data(), st.booleans())
def test_interrupted_run_is_rolled_back_by_another_plan(
    tmp_path: Path, some: list[str], data: st.DataObject, after: bool
) -> None:
    receipts = new_receipts(tmp_path)
    world = World(fail_at=data.draw(st.sampled_from(some)), error=Killed(), after=after)
    with pytest.raises(Killed):
        apply(plan_of(*some), world, receipts)
    world.error = None
    assert apply(plan_of("z"), world, receipts) is not None
    assert world.things == {"z"}


def test_interrupted_run_can_be_rolled_back_without_another_plan(tmp_path: Path) -> None:
    receipts, world = Receipts(tmp_path / "r.db"), World(fail_at="b", error=Killed(), after=True)
    with pytest.raises(Killed):
        apply(plan_of("a", "b"), world, receipts)
    roll_back(world, "one", receipts)
    assert world.things == set()
    assert receipts.unfinished("world", "one") is None
    roll_back(world, "one", receipts)  # does nothing without an interrupted run


def test_update_records_the_previous_version_and_a_failed_one_leaves_the_receipt_unchanged(tmp_path: Path) -> None:
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
    assert again.previous == second.previous  # the same version again is a repair, not a new version
    world.fail_at, world.error = "c", DeployFailed("no", remedy="no")
    with pytest.raises(DeployFailed) as failed:
        apply(plan_of("c", verb="update"), world, receipts)
    assert failed.value.cause == str(failed.value) == "no; the update was rolled back"
    assert Receipt.from_dict(receipts.get("world", "one") or {}) == again
    world.error = Killed()
    with pytest.raises(Killed):
        apply(plan_of("c", verb="update"), world, receipts)
    roll_back(world, "one", receipts)
    history = history_of(receipts, again)
    assert [each.number for each in history] == [1, 2, 3, 4]
    assert [each.outcome for each in history] == ["deployed", "deployed", "rolled back", "rolled back"]
    assert [each.cause for each in history] == ["", "", "no", "it was interrupted"]
    assert [each.changes for each in history] == [{}, {"model": "models:/m/2"}, *[{"model": "models:/m/1"}] * 2]
    assert [each.returns_to for each in history] == [None, None, 1, 1]


def test_history_has_the_cause_of_a_failure_that_could_not_be_undone_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts, world = Receipts(tmp_path / "r.db"), World()
    deployed = apply(plan_of("a"), world, receipts)
    assert deployed is not None
    world.fail_at, world.error = "b", DeployFailed("the port is taken", remedy="free it")
    with monkeypatch.context() as patch:
        patch.setattr(world, "undo", lambda *_: (_ for _ in ()).throw(DeployFailed("still taken", remedy="free it")))
        with pytest.raises(DeployFailed, match="the port is taken"):
            apply(plan_of("b", verb="update"), world, receipts)
    assert receipts.unfinished("world", "one") is not None
    roll_back(world, "one", receipts)
    assert [each.cause for each in history_of(receipts, deployed)] == ["", "the port is taken"]


def test_the_same_model_in_another_folder_adds_no_version(tmp_path: Path) -> None:
    receipts, world = Receipts(tmp_path / "r.db"), World()
    other = ModelSpec("sha256:cd", Path("/other"), "models:/m/2")
    apply(plan_of("a"), world, receipts)
    second = apply(plan_of("a", verb="update", model=other), world, receipts)
    moved = ModelSpec("sha256:cd", Path("/copy"), "/copy")
    third = apply(plan_of("a", verb="update", model=moved), world, receipts)
    assert second is not None
    assert third is not None
    assert third.previous == second.previous
    assert len(history_of(receipts, third)) == 2


def test_history_of_a_store_of_an_earlier_version_starts_with_its_receipt(tmp_path: Path) -> None:
    receipts, world = Receipts(tmp_path / "r.db"), World()
    first = apply(plan_of("a"), world, receipts)
    assert first is not None
    with sqlite3.connect(tmp_path / "r.db") as database:
        database.execute("DROP TABLE revisions")
    assert [each.model for each in history_of(receipts, first)] == [MODEL]
    apply(plan_of("b", verb="update", model=ModelSpec("sha256:cd", Path("/other"), "models:/m/2")), world, receipts)
    assert [each.model.source for each in history_of(receipts, first)] == ["models:/m/1", "models:/m/2"]


def test_deletion_removes_the_receipt_and_a_failed_one_does_not(tmp_path: Path) -> None:
    receipts, world = Receipts(tmp_path / "r.db"), World()
    apply(plan_of("a"), world, receipts)
    world.fail_at, world.error = "gone", DeployFailed("no", remedy="no")
    with pytest.raises(DeployFailed):
        apply(plan_of("gone", verb="delete", model=None), world, receipts)
    assert receipts.get("world", "one") is not None
    world.error = None
    assert apply(plan_of("gone", verb="delete", model=None), world, receipts) is None
    assert receipts.all() == []
    assert receipts.revisions("world", "one") == []


def test_concurrent_change_of_the_same_deployment_raises_busy(tmp_path: Path) -> None:
    receipts, inside, leave = Receipts(tmp_path / "r.db"), threading.Event(), threading.Event()

    def wait(_: PlanStep) -> None:
        inside.set()
        assert leave.wait(30)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(apply, plan_of("a"), World(), receipts, wait)
        assert inside.wait(30)
        try:
            with pytest.raises(Busy, match="one"):
                apply(plan_of("b"), World(), receipts)
        finally:
            leave.set()
        assert first.result() is not None


def test_plan_and_its_key_survive_a_json_round_trip() -> None:
    import json

    plan = plan_of("a", "b")
    copy = Plan.from_dict(json.loads(json.dumps(plan.as_dict())))
    assert copy == plan
    assert copy.key == plan.key
    assert plan_of("a").key != plan.key


def test_file_that_is_not_a_database_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "receipts.db"
    path.write_text("this is not a database, but long enough to be opened as one" * 30)
    with pytest.raises(OutputRefused, match=r"receipts\.db"):
        Receipts(path).all()
