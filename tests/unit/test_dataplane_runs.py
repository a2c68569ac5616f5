"""Runs without results in the data plane: those of a process that was ended, and those that cannot be ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import DeadlineExceeded, LikewiseError, ModelCrashed, NotReady, RunTimeout, WorkerDied
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok, Result
from likewise.dataplane import DataPlane, Observer, PlaneOptions

TIMEOUT_S = 0.2


class Contained:
    """An engine whose runs are ended if they contain `hang` or `crash`; `slow` alone takes half of the time-out."""

    spec = EngineSpec("contained", "none", row_wise=True, thread_safe=True, pure=True, budget=64)
    available = True

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.alone: list[tuple[str, float]] = []
        self.filled = False
        self.loss = ""

    def answer(self, items: Sequence[Item], *, alone_s: float | None = None) -> list[tuple[int, Result]]:
        texts = [str(item.values[0]) for item in items if isinstance(item, Row)]
        if alone_s is None:
            self.gate.wait()
        else:
            self.alone += [(text, alone_s) for text in texts]
        if "hang" in texts or ("slow" in texts and (len(texts) > 1 or (alone_s or 0) < TIMEOUT_S)):
            raise RunTimeout("too long", remedy="none")
        if "crash" in texts:
            raise (WorkerDied if alone_s is None else ModelCrashed)("it died", remedy="none")
        if "drain" in texts:
            raise LikewiseError("stopped", remedy="none")
        return [(1, Ok(text)) for text in texts]

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        raise NotImplementedError

    def run(self, work: Sequence[Work]) -> list[Result]:
        raise NotImplementedError

    def fill(self) -> None:
        self.filled = True

    def close(self) -> None:
        self.gate.set()


class Counts(Observer):
    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.items = 0

    def ended(self, reason: str, cause: str) -> None:
        self.reasons.append(reason)

    def repeated(self, items: int) -> None:
        self.items += items


def rows(*texts: str) -> list[Item]:
    return [Row(("text",), (text,)) for text in texts]


async def submitted(texts: Sequence[str], seconds: float = TIMEOUT_S) -> tuple[list[Result], Contained, Counts]:
    """The results of calls that were run together, one per text."""
    engine, counts = Contained(), Counts()
    plane = DataPlane(engine, PlaneOptions(run_timeout_s=seconds), observer=counts)
    engine.gate.clear()
    first = asyncio.create_task(plane.submit(rows("first")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    calls = [asyncio.create_task(plane.submit(rows(text))) for text in texts]
    while plane.waiting_items < len(texts):
        await asyncio.sleep(0.001)
    engine.gate.set()
    assert await first == [Ok("first")]
    results = [result for call in calls for result in await call]
    await plane.close()
    return results, engine, counts


def kinds(results: Sequence[Result]) -> list[object]:
    return [result.value if isinstance(result, Ok) else type(result.error) for result in results]


@pytest.mark.parametrize(
    ("texts", "expected", "reason"),
    [
        (["a", "hang", "b"], ["a", RunTimeout, "b"], "timeout"),
        (["a", "crash", "b"], ["a", ModelCrashed, "b"], "death"),
        (["a", "hang", "b", "crash", "slow"], ["a", RunTimeout, "b", ModelCrashed, "slow"], "timeout"),
        (["hang"], [RunTimeout], "timeout"),
        (["crash"], [ModelCrashed], "death"),
    ],
)
def test_items_of_an_ended_run_are_run_again_and_only_the_guilty_fail(
    texts: list[str], expected: list[object], reason: str
) -> None:
    results, _, counts = asyncio.run(submitted(texts, 20.0))
    assert kinds(results) == expected
    assert counts.reasons == [reason]
    assert counts.items == (len(texts) if texts != ["hang"] else 0)


def test_first_try_is_short_and_a_single_item_that_is_left_hangs() -> None:
    results, engine, _ = asyncio.run(submitted(["hang", "a"], 30.0))
    assert kinds(results) == [RunTimeout, "a"]
    assert engine.alone == [("hang", 3.0), ("a", 3.0)]


def test_other_errors_fail_the_run() -> None:
    results, engine, counts = asyncio.run(submitted(["a", "drain"]))
    assert kinds(results) == [LikewiseError] * 2
    assert (engine.alone, counts.reasons) == ([], [])


def test_items_that_nobody_waits_for_are_not_run_again() -> None:
    async def scenario() -> None:
        engine = Contained()
        plane = DataPlane(engine, PlaneOptions(run_timeout_s=1.0, deadline_s=0.01))
        engine.gate.clear()
        call = asyncio.create_task(plane.submit(rows("a", "crash")))
        with pytest.raises(DeadlineExceeded):
            await call
        engine.gate.set()
        await plane.close()
        assert engine.alone == []

    asyncio.run(scenario())


def test_not_ready_while_no_process_can_run() -> None:
    async def scenario() -> None:
        engine = Contained()
        plane = DataPlane(engine)
        plane.check_free()
        engine.available = False
        with pytest.raises(NotReady, match="no worker"):
            plane.check_free()
        await plane.close()

    asyncio.run(scenario())


class Endless:
    """An engine in this process, whose runs wait for `gate`."""

    spec = EngineSpec("endless", "none", row_wise=True, thread_safe=True, pure=True, budget=1, slots=2)

    def __init__(self) -> None:
        self.gate = threading.Event()

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return [Work(str(item), 1, item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        texts = [each.payload.values[0] for each in work if isinstance(each.payload, Row)]
        if "endless" in texts:
            self.gate.wait()
        return [Ok(text) for text in texts]

    def close(self) -> None:
        """Nothing to close."""


def test_overdue_runs_that_cannot_be_ended_leave_the_other_slots() -> None:
    async def scenario() -> None:
        engine, counts = Endless(), Counts()
        plane = DataPlane(engine, PlaneOptions(run_timeout_s=TIMEOUT_S), observer=counts)
        (first,) = await plane.submit(rows("endless"))
        assert isinstance(first, Failed)
        assert isinstance(first.error, RunTimeout)
        plane.check_free()
        assert await plane.submit(rows("a")) == [Ok("a")]
        stuck = asyncio.create_task(plane.submit([Row(("text",), ("endless",), {"other": 1})]))
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(plane.submit(rows("b")))
        (second,), (third,) = await stuck, await waiting
        assert isinstance(second, Failed)
        assert isinstance(third, Failed)
        assert isinstance(third.error, NotReady)
        with pytest.raises(NotReady, match="cannot be interrupted"):
            await plane.submit(rows("c"))
        with pytest.raises(NotReady, match="cannot be interrupted"):
            plane.check_free()
        engine.gate.set()
        while plane._runs.overdue:
            await asyncio.sleep(0.001)
        plane.check_free()
        assert await plane.submit(rows("c")) == [Ok("c")]
        assert counts.reasons == ["overdue"] * 2
        await plane.close()

    asyncio.run(scenario())


def test_late_run_of_a_contained_engine_leaves_its_slot_to_others() -> None:
    async def scenario() -> None:
        engine = Contained()
        plane = DataPlane(engine, PlaneOptions(run_timeout_s=2 * TIMEOUT_S))
        engine.gate.clear()
        late = asyncio.create_task(plane.submit(rows("late")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        other = asyncio.create_task(plane.submit(rows("other")))
        while plane.waiting_items == 0:
            await asyncio.sleep(0.001)
        while plane.waiting_items:
            await asyncio.sleep(0.001)
        assert len(plane._threads) == 2
        engine.gate.set()
        assert [await late, await other] == [[Ok("late")], [Ok("other")]]
        while len(plane._threads) > 1:
            await asyncio.sleep(0.001)
        assert await plane.submit(rows("more")) == [Ok("more")]
        await plane.close()

    asyncio.run(scenario())
