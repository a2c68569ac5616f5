"""Components of the data plane: queue, cost model, cache, keys; and admission under load in virtual time."""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.virtual_time import TimedThread, VirtualLoop, run

from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import DeadlineExceeded, Overloaded
from likewise.core.items import Item, Request, Row, Table
from likewise.core.keys import item_key
from likewise.core.results import Failed, Ok, Result
from likewise.dataplane import DataPlane, PlaneOptions
from likewise.dataplane.cache import OVERHEAD, ResultCache
from likewise.dataplane.calls import CANDIDATES, LOOKAHEAD, EntryQueue, QueueEntry
from likewise.dataplane.cost import CostModel

# --- the queue -------------------------------------------------------------------------------------------------------


def queue_of(costs: Sequence[int]) -> tuple[EntryQueue, list[QueueEntry]]:
    waiting, entries = EntryQueue(), [QueueEntry(Row(None, (i,)), None, 0.0, cost) for i, cost in enumerate(costs)]
    for entry in entries:
        waiting.add(entry)
    return waiting, entries


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 100))
def test_a_window_contains_the_oldest_entry_and_fits_the_budget(costs: list[int], budget: int) -> None:
    waiting, entries = queue_of(costs)
    window = waiting.take_window(budget)
    assert entries[0] in window
    assert len(window) == 1 or len(window) * max(entry.cost for entry in window) <= budget
    left = list(waiting._entries.values())
    assert waiting.tokens == sum(entry.cost for entry in left)
    assert {id(entry) for entry in left} == {id(entry) for entry in entries} - {id(entry) for entry in window}


ARRIVALS = st.lists(st.lists(st.integers(1, 60), max_size=12), min_size=1, max_size=40)


@pytest.mark.slow
@given(ARRIVALS, st.integers(1, 200), st.data())
def test_few_tokens_are_processed_ahead_of_an_earlier_entry(
    arrivals: list[list[int]], budget: int, data: st.DataObject
) -> None:
    """At most LOOKAHEAD budgets in addition to those ahead on arrival, regardless of later arrivals and drops."""
    waiting = EntryQueue()
    allowed: dict[int, float] = {}
    served = 0
    kept = []  # keeps entries alive, so that ids are unique
    for costs in [*arrivals, *([[]] * 500)]:
        for cost in costs:
            entry = QueueEntry(Row(None, (0,)), None, 0.0, cost)
            kept.append(entry)
            allowed[id(entry)] = served + waiting.tokens + LOOKAHEAD * budget
            waiting.add(entry)
        if costs and data.draw(st.booleans()):
            waiting.drop(data.draw(st.sampled_from(kept)))
        if waiting:
            window = waiting.take_window(budget)
            assert all(served <= allowed[id(entry)] for entry in window)
            served += sum(entry.cost for entry in window)
    assert not waiting


def test_only_the_oldest_entries_of_a_long_queue_are_considered() -> None:
    waiting, _ = queue_of([1] * (2 * CANDIDATES))
    assert len(waiting.take_window(10**9)) == CANDIDATES


# --- the cost model --------------------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.floats(1e-6, 0.1), st.lists(st.integers(1, 5000), min_size=2, max_size=40, unique=True))
def test_the_cost_model_learns_a_linear_function(base: float, per_token: float, sizes: list[int]) -> None:
    model = CostModel()
    for tokens in sizes:
        model.learn(tokens, base + per_token * tokens)
    for tokens in sizes:
        assert model.seconds(tokens, 1) == pytest.approx(base + per_token * tokens, rel=0.05, abs=1e-6)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 100)), min_size=1, max_size=60))
def test_the_cost_model_never_predicts_negative_times(runs: list[tuple[int, float]]) -> None:
    model = CostModel()
    for tokens, seconds in runs:
        model.learn(tokens, seconds)
        assert model.base >= 0
        assert model.per_token >= 0
        assert model.seconds(2 * tokens, 2) >= model.seconds(tokens, 1)


def test_the_cost_model_forgets_a_slow_first_run() -> None:
    model = CostModel()
    model.learn(10, 20.0)
    for tokens in range(1, 100):
        model.learn(tokens, tokens * 0.001)
    assert model.seconds(100, 1) < 0.2


# --- keys and the cache ----------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def same(left: Any, right: Any) -> bool:
    """Equal values of equal types, recursively."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(map(same, left.values(), right.values()))
    return bool(repr(left) == repr(right))


@given(VALUES, VALUES)
def test_keys_are_equal_exactly_for_equal_items(left: object, right: object) -> None:
    keys = item_key(Row(("a",), (left,))), item_key(Row(("a",), (right,)))
    assert (keys[0] == keys[1]) == same(left, right)


def test_keys_distinguish_types_that_compare_equal() -> None:
    rows: list[Item] = [
        Row(("a",), (value,)) for value in (1, 1.0, True, "1", b"1", 0.0, -0.0, None, datetime(2026, 1, 1))
    ]
    rows += [Row(("b",), (1,)), Row(None, (1,)), Row(("a",), (1,), {"p": 1}), Request(Table(("a",), [(1,)]))]
    assert len({item_key(row) for row in rows}) == len(rows)
    assert item_key(Row(("a",), ("x" * 3,))) == item_key(Row(("a",), ("xxx",)))


def test_the_cache_evicts_the_least_recently_used_entry() -> None:
    cache = ResultCache(3 * (OVERHEAD + 100))
    for name in (b"a", b"b", b"c"):
        cache.put(name, Ok("x" * 20))
    assert cache.get(b"a") == Ok("x" * 20)
    cache.put(b"d", Ok("y" * 20))
    cache.put(b"e", Ok("z" * 20))
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c", b"d", b"e")][:3] != [True, True, True]
    assert cache.get(b"a") is not None
    assert cache.get(b"e") is not None


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 400)), max_size=60), st.integers(0, 5000))
def test_the_cache_respects_its_size_limit(puts: list[tuple[int, int]], limit: int) -> None:
    cache = ResultCache(limit)
    for key, length in puts:
        cache.put(bytes([key]), Ok("x" * length))
        cached = [cache.get(bytes([key])) for key in range(21)]
        assert sum(OVERHEAD + len(str(result.value)) for result in cached if result) <= limit


# --- admission, in virtual time --------------------------------------------------------------------------------------

PER_TOKEN, BASE = 0.001, 0.005  # seconds


class Costly:
    """An engine whose items are their own cost."""

    def __init__(self, **spec: Any) -> None:
        defaults = {"row_wise": True, "thread_safe": True, "pure": False, "budget": 100, "overlaps": True}
        self.spec = EngineSpec("costly", "none", **{**defaults, **spec})

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return [Work("", int(str(item.values[0])), None) for item in items if isinstance(item, Row)]

    def run(self, work: Sequence[Work]) -> list[Result]:
        return [Ok(None) for _ in work]

    def close(self) -> None:
        """Nothing to release."""


def duration(call: partial[None]) -> float:
    """Seconds that a thread's call takes: a run by its items' costs, preparation none."""
    entries = [argument for argument in call.args if isinstance(argument, list) and argument]
    if not entries or not isinstance(entries[0][0], QueueEntry):
        return 0.0
    return BASE + PER_TOKEN * sum(int(str(entry.item.values[0])) for entry in entries[0])


def plane_of(engine: Costly, deadline_s: float, queue_tokens: int = 10**9) -> DataPlane:
    options = PlaneOptions(deadline_s=deadline_s, queue_tokens=queue_tokens)
    return DataPlane(engine, options, new_thread=lambda _: TimedThread(duration))


async def flood(
    plane: DataPlane, loop: VirtualLoop, rate: float, seconds: float, cost: Callable[[], int]
) -> dict[str, list[float]]:
    """Submit calls at a fixed rate; returns the latency of each call by outcome."""
    latencies: dict[str, list[float]] = {"completed": [], "rejected": [], "late": []}

    async def one() -> None:
        started = loop.time()
        try:
            await plane.submit([Row(None, (cost(),))])
            kind = "completed"
        except Overloaded as error:
            kind = "rejected" if (error.retry_after_s or 0) >= 1 else "rejected without retry-after"
        except DeadlineExceeded:
            kind = "late"
        latencies[kind].append(loop.time() - started)

    calls = []
    for _ in range(int(rate * seconds)):
        calls.append(asyncio.create_task(one()))
        await asyncio.sleep(1 / rate)
    await asyncio.gather(*calls)
    return latencies


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "overlaps"), [(1, True), (2, True), (1, False)])
def test_under_triple_load_excess_calls_are_rejected_immediately_and_the_rest_meet_the_deadline(
    slots: int, overlaps: bool
) -> None:
    async def scenario(loop: VirtualLoop) -> None:
        dice = random.Random(1)
        plane = plane_of(Costly(slots=slots, overlaps=overlaps), deadline_s=2.0)
        peak = slots / (PER_TOKEN * 10 + BASE / 10)  # items a second in full windows of ten
        latencies = await flood(plane, loop, 3 * peak, 30, lambda: dice.choice((5, 8, 10, 12, 15)))
        assert not latencies["late"]
        assert max(latencies["completed"]) <= 2.0
        assert max(latencies["rejected"]) == 0.0
        assert len(latencies["completed"]) >= 0.93 * peak * 30
        await plane.close()

    run(scenario, jump=True)


def test_below_capacity_no_call_is_rejected() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        plane = plane_of(Costly(), deadline_s=2.0)
        latencies = await flood(plane, loop, 50, 20, lambda: 10)
        assert not latencies["late"]
        assert not latencies["rejected"]
        await plane.close()

    run(scenario, jump=True)


def test_a_few_small_slow_runs_do_not_cause_rejections() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        plane = plane_of(Costly(budget=4096), deadline_s=60.0)
        for tokens, seconds in ((20, 0.8), (12, 0.3), (15, 0.4), (13, 0.2), (30, 0.9)):
            plane._admission.model.learn(tokens, seconds)
        latencies = await flood(plane, loop, 1000, 0.08, lambda: 200)
        assert len(latencies["completed"]) == 80
        await plane.close()

    run(scenario, jump=True)


def test_the_queue_is_bounded_in_tokens() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        plane = plane_of(Costly(), deadline_s=1000.0, queue_tokens=500)
        samples: list[int] = []

        async def watch() -> None:
            while True:
                samples.append(plane.waiting_tokens)
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        latencies = await flood(plane, loop, 500, 5, lambda: 10)
        watching.cancel()
        assert latencies["rejected"]
        assert 400 < max(samples) <= 510
        await plane.close()

    run(scenario, jump=True)


def test_long_items_among_many_short_ones_wait_no_longer_than_the_documented_bound() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        plane = plane_of(Costly(), deadline_s=60.0)
        waits: list[float] = []

        async def long_one() -> None:
            started, before = loop.time(), plane.waiting_tokens
            await plane.submit([Row(None, (90,))])
            window = BASE + PER_TOKEN * 100
            waits.append((loop.time() - started) / (window * (2 * before / 100 + LOOKAHEAD + 2)))

        async def long_ones() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(50):
                    group.create_task(long_one())
                    await asyncio.sleep(0.3)

        slow = asyncio.create_task(long_ones())
        await flood(plane, loop, 125, 15, lambda: 5)
        await slow
        assert max(waits) <= 1
        await plane.close()

    run(scenario, jump=True)


def test_a_slow_first_run_does_not_cause_permanent_rejections() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        engine = Costly()
        plane = plane_of(engine, deadline_s=2.0)
        plane._admission.model.learn(1, 30.0)
        latencies = await flood(plane, loop, 50, 20, lambda: 10)
        assert len(latencies["completed"]) > 0.9 * len(
            latencies["completed"] + latencies["rejected"] + latencies["late"]
        )
        await plane.close()

    run(scenario, jump=True)
