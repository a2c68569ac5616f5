"""The data plane with a tiny real engine: batching, isolation, cancellation, draining, correct results per caller."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import Draining, ModelRaised, RowRefused
from likewise.core.items import Item, Request, Row, Table
from likewise.core.results import Failed, Ok, Result
from likewise.dataplane import DataPlane

FAILING, FAILING_IN_PREPARE, EXIT = "poison", "poison-early", "exit"


class Echo:
    """Returns each item as its result; records its runs, which wait while `gate` is closed."""

    def __init__(self, *, row_wise: bool = True, budget: int = 64) -> None:
        self.spec = EngineSpec("echo", "none", row_wise, False, False, budget, overlaps=True)
        self.gate = threading.Event()
        self.gate.set()
        self.runs: list[list[Any]] = []
        self.entered = threading.Semaphore(0)
        self.closed = False

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        texts = [text_of(item) for item in items]
        if FAILING_IN_PREPARE in texts:
            raise ValueError(FAILING_IN_PREPARE)
        return [Work(text, max(1, len(text)), text) for text in texts]

    def run(self, work: Sequence[Work]) -> list[Result]:
        self.entered.release()
        self.gate.wait()
        payloads = [one.payload for one in work]
        self.runs.append(payloads)
        if EXIT in payloads:
            raise SystemExit
        if FAILING in payloads:
            raise ValueError(FAILING)
        return [Ok(payload) for payload in payloads]

    def close(self) -> None:
        self.closed = True


def text_of(item: Item) -> str:
    return str(item.values[0] if isinstance(item, Row) else item.table.rows[0][0])


def rows(*texts: str) -> list[Item]:
    return [Row(("text",), (text,)) for text in texts]


async def entered(engine: Echo) -> None:
    assert await asyncio.to_thread(engine.entered.acquire, timeout=10)


async def until_waiting(plane: DataPlane, waiting: int) -> None:
    """Wait until at least `waiting` items are queued."""
    async with asyncio.timeout(10):
        while plane.waiting_items < waiting:
            await asyncio.sleep(0.001)


def test_failing_items_do_not_affect_others() -> None:
    async def scenario() -> None:
        engine = Echo()
        plane = DataPlane(engine)
        results = await plane.submit(rows("a", FAILING, "b", FAILING_IN_PREPARE))
        assert [type(result) for result in results] == [Ok, Failed, Ok, Failed]
        assert all(isinstance(result.error, RowRefused) for result in results if isinstance(result, Failed))
        await plane.close()
        assert engine.closed

    asyncio.run(scenario())


def test_waiting_calls_share_the_next_run() -> None:
    async def scenario() -> None:
        engine = Echo()
        plane = DataPlane(engine)
        engine.gate.clear()
        first = asyncio.create_task(plane.submit(rows("first")))
        await entered(engine)
        others = [asyncio.create_task(plane.submit(rows(f"other{i}"))) for i in range(5)]
        await until_waiting(plane, 5)
        engine.gate.set()
        assert await first == [Ok("first")]
        assert [await other for other in others] == [[Ok(f"other{i}")] for i in range(5)]
        assert engine.runs == [["first"], [f"other{i}" for i in range(5)]]
        await plane.close()

    asyncio.run(scenario())


def test_a_window_contains_the_oldest_item_and_fits_the_budget() -> None:
    async def scenario() -> None:
        engine = Echo(budget=20)
        plane = DataPlane(engine)
        engine.gate.clear()
        tasks = [asyncio.create_task(plane.submit(rows("x")))]
        await entered(engine)
        tasks += [asyncio.create_task(plane.submit(rows(t))) for t in ("long" * 3, "b", "long" * 2, "c", "long" * 4)]
        await until_waiting(plane, 5)
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert "long" * 3 in engine.runs[1]
        assert all(len(run) * max(map(len, run)) <= 20 for run in engine.runs)
        await plane.close()

    asyncio.run(scenario())


def test_requests_of_a_model_that_is_not_row_wise_run_alone() -> None:
    async def scenario() -> None:
        engine = Echo(row_wise=False)
        plane = DataPlane(engine)
        calls = [plane.submit([Request(Table(("text",), [(str(i),)]))]) for i in range(6)]
        assert await asyncio.gather(*calls) == [[Ok(str(i))] for i in range(6)]
        assert sorted(map(len, engine.runs)) == [1] * 6
        await plane.close()

    asyncio.run(scenario())


def test_cancelling_a_call_drops_only_its_own_waiting_items() -> None:
    async def scenario() -> None:
        engine = Echo()
        plane = DataPlane(engine)
        engine.gate.clear()
        left, mate = asyncio.create_task(plane.submit(rows("left"))), asyncio.create_task(plane.submit(rows("mate")))
        await entered(engine)
        late, kept = asyncio.create_task(plane.submit(rows("late"))), asyncio.create_task(plane.submit(rows("kept")))
        await until_waiting(plane, 2)
        for gone in (left, late):
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
        engine.gate.set()
        assert await mate == [Ok("mate")]
        assert await kept == [Ok("kept")]
        assert engine.runs == [["left", "mate"], ["kept"]]
        await plane.close()

    asyncio.run(scenario())


def test_close_completes_accepted_calls_and_rejects_new_ones() -> None:
    async def scenario() -> None:
        engine = Echo()
        plane = DataPlane(engine)
        engine.gate.clear()
        accepted = [asyncio.create_task(plane.submit(rows(str(i), str(-i)))) for i in range(20)]
        await entered(engine)
        closing = asyncio.create_task(plane.close())
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            await plane.submit(rows("late"))
        assert not closing.done()
        engine.gate.set()
        await closing
        assert [await task for task in accepted] == [[Ok(str(i)), Ok(str(-i))] for i in range(20)]
        assert engine.closed

    asyncio.run(scenario())


def test_a_model_that_calls_exit_does_not_stop_the_server() -> None:
    async def scenario() -> None:
        plane = DataPlane(Echo())
        (result,) = await plane.submit(rows(EXIT))
        assert isinstance(result, Failed)
        assert isinstance(result.error, ModelRaised)
        assert await plane.submit(rows("after")) == [Ok("after")]
        await plane.close()

    asyncio.run(scenario())


def test_a_long_call_is_prepared_in_parts() -> None:
    async def scenario() -> None:
        plane = DataPlane(Echo())
        texts = [str(i) for i in range(5000)]
        assert await plane.submit(rows(*texts)) == [Ok(text) for text in texts]
        await plane.close()

    asyncio.run(scenario())


KINDS = ["", "a", "bb", "c" * 30, FAILING, FAILING_IN_PREPARE]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(st.sampled_from(KINDS), max_size=5)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("shut"), st.none()),
        st.tuples(st.just("open"), st.none()),
        st.tuples(st.just("pass"), st.integers(0, 5)),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(1, 80), st.booleans())
def test_every_caller_gets_its_own_results_in_any_interleaving(
    steps: list[tuple[str, Any]], budget: int, row_wise: bool
) -> None:
    """Calls that are not cancelled get exactly their own results, regardless of other calls; nothing hangs."""

    async def scenario() -> None:
        engine = Echo(row_wise=row_wise, budget=budget)
        plane = DataPlane(engine)
        calls: list[tuple[list[str], asyncio.Task[list[Result]]]] = []
        for step, argument in steps:
            if step == "submit":
                texts = [k if k.startswith("poison") else f"{len(calls)}.{i}{k}" for i, k in enumerate(argument)]
                items = rows(*texts) if row_wise else [Request(Table(("text",), [(text,)])) for text in texts]
                calls.append((texts, asyncio.create_task(plane.submit(items))))
            elif step == "cancel" and calls:
                calls[argument % len(calls)][1].cancel()
            elif step in ("shut", "open"):
                (engine.gate.clear if step == "shut" else engine.gate.set)()
            else:
                for _ in range(argument or 0):
                    await asyncio.sleep(0)
        await asyncio.sleep(0)
        engine.gate.set()
        async with asyncio.timeout(30):
            await plane.close()
        for texts, task in calls:
            check(texts, task)
        assert engine.closed

    asyncio.run(scenario())


def check(texts: list[str], task: "asyncio.Task[list[Result]]") -> None:
    assert task.done()
    if task.cancelled():
        return
    for text, result in zip(texts, task.result(), strict=True):
        assert isinstance(result, Failed) if text.startswith("poison") else result == Ok(text)
