"""The data plane against a reference model: arrivals, cancellations, failures, deadlines and shutdown in any order."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.virtual_time import HandThread, VirtualLoop, run

from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import DeadlineExceeded, Draining, Overloaded
from likewise.core.items import Item, Request, Row, Table
from likewise.core.results import Failed, Ok, Result
from likewise.dataplane import DataPlane, Observer, PlaneOptions, RunStats

DEADLINE_S = 10.0
POISON = "poison"


class Echo:
    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.computed: Counter[str] = Counter()
        self.closed = False

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        texts = [str(item.values[0] if isinstance(item, Row) else item.table.rows[0][0]) for item in items]
        return [Work(text, max(1, len(text)), text) for text in texts]

    def run(self, work: Sequence[Work]) -> list[Result]:
        payloads = [str(one.payload) for one in work]
        if any(POISON in text for text in payloads):
            raise ValueError(POISON)
        self.computed.update(payloads)
        return [Ok(text) for text in payloads]

    def close(self) -> None:
        self.closed = True


class Counts(Observer):
    """Counts items, to check that every new item is computed or dropped exactly once."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.fresh = self.ran_items = self.dropped_items = 0

    def missed(self, items: int) -> None:
        self.fresh += items

    def dropped(self, items: int) -> None:
        self.dropped_items += items

    def ran(self, run: RunStats) -> None:
        self.ran_items += run.items
        assert run.items == 1 or self.spec.row_wise
        assert all(seconds >= 0 for seconds in run.waited)


class World:
    """The data plane, its manually stepped threads, and the expected result of each call."""

    def __init__(self, loop: VirtualLoop, spec: EngineSpec, options: PlaneOptions) -> None:
        self.loop, self.engine, self.counts = loop, Echo(spec), Counts(spec)
        self.jobs: list[tuple[HandThread, Any]] = []
        self.plane = DataPlane(self.engine, options, observer=self.counts, new_thread=partial(HandThread, self.jobs))
        self.calls: list[tuple[list[str], float, asyncio.Task[list[Result]]]] = []
        self.closing: asyncio.Task[None] | None = None

    def submit(self, texts: list[str]) -> None:
        items: list[Item] = [Row(("t",), (text,)) for text in texts]
        if not self.engine.spec.row_wise:
            items = [Request(Table(("t",), [(text,)])) for text in texts]
        self.calls.append((texts, self.loop.time(), asyncio.create_task(self.plane.submit(items))))

    def step(self, choice: int) -> None:
        """Run one of the posted thread calls; its result reaches the plane through the loop."""
        if self.jobs:
            self.jobs.pop(choice % len(self.jobs))[1]()

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)
        runs = [thread for thread, _ in self.jobs if "run" in thread.name]
        assert len(runs) <= (self.engine.spec.slots if self.engine.spec.thread_safe else 1)
        waiting = self.plane.waiting_items
        if waiting and not self.plane._preparing:  # work-conserving: items wait only if every slot is busy
            assert len(runs) == (self.engine.spec.slots if self.engine.spec.thread_safe else 1)

    async def finish(self) -> None:
        if self.closing is None:
            self.closing = asyncio.create_task(self.plane.close())
        while not self.closing.done():
            self.step(0)
            await self.settle()
        for texts, at, task in self.calls:
            self.check(texts, at, task)
        self.check_counts()

    def check(self, texts: list[str], at: float, task: "asyncio.Task[list[Result]]") -> None:
        assert task.done()
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            for text, result in zip(texts, task.result(), strict=True):
                assert isinstance(result, Failed) if POISON in text else result == Ok(text)
        elif isinstance(error, DeadlineExceeded):
            assert self.loop.time() >= at + DEADLINE_S
        else:
            assert isinstance(error, Overloaded | Draining)

    def check_counts(self) -> None:
        assert self.engine.closed
        assert not self.plane.waiting_items
        assert not self.plane.waiting_tokens
        assert not self.plane._in_flight
        assert all(thread.ended for thread in self.plane._threads)  # type: ignore[attr-defined]
        if self.engine.spec.pure:
            assert self.counts.fresh == self.counts.ran_items + self.counts.dropped_items
            assert max(self.engine.computed.values(), default=1) == 1, "a known result was computed again"


TEXTS = st.sampled_from(["", "a", "bb", "cc", "d" * 9, "e" * 30, POISON])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(TEXTS, max_size=4)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("step"), st.integers(0, 5)),
        st.tuples(st.just("step"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.floats(0, 6)),
        st.tuples(st.just("close"), st.none()),
    ),
    max_size=40,
)
SPECS = st.builds(
    EngineSpec,
    st.just("echo"),
    st.just("none"),
    row_wise=st.booleans(),
    thread_safe=st.booleans(),
    pure=st.booleans(),
    budget=st.integers(1, 40),
    slots=st.integers(1, 3),
    overlaps=st.booleans(),
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(STEPS, SPECS, st.sampled_from([10, 10_000]))
def test_every_interleaving_matches_the_reference_model(
    steps: list[tuple[str, Any]], spec: EngineSpec, queue_tokens: int
) -> None:
    async def scenario(loop: VirtualLoop) -> None:
        world = World(loop, spec, PlaneOptions(deadline_s=DEADLINE_S, queue_tokens=queue_tokens))
        for action, argument in steps:
            if action == "submit":
                unique = not spec.pure
                world.submit([f"{text}{len(world.calls)}.{i}" if unique else text for i, text in enumerate(argument)])
            elif action == "cancel" and world.calls:
                world.calls[argument % len(world.calls)][2].cancel()
            elif action == "step":
                world.step(argument)
            elif action == "wait":
                loop.advance(argument)
            elif action == "close" and world.closing is None:
                world.closing = asyncio.create_task(world.plane.close())
            await world.settle()
        await world.finish()

    run(scenario, jump=False)
