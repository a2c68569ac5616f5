"""The data plane against a model of it: arrivals, cancels, failures, deadlines, shutdown, in any order."""

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


class Books(Observer):
    """Every fresh item is computed or dropped, once."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.fresh = self.ran_items = self.dropped_items = 0

    def missed(self, items: int) -> None:
        self.fresh += items

    def dropped(self, items: int) -> None:
        self.dropped_items += items

    def ran(self, run: RunStats) -> None:
        self.ran_items += ran.items
        assert ran.items == 1 or self.spec.row_wise
        assert all(seconds >= 0 for seconds in ran.waited)


class World:
    """The plane, the threads that are turned by hand, and what each caller must get."""

    def __init__(self, loop: VirtualLoop, spec: EngineSpec, options: PlaneOptions) -> None:
        self.loop, self.engine, self.books = loop, Echo(spec), Books(spec)
        self.jobs: list[tuple[HandThread, Any]] = []
        self.plane = DataPlane(self.engine, options, observer=self.books, new_thread=partial(HandThread, self.jobs))
        self.calls: list[tuple[list[str], float, asyncio.Task[list[Result]]]] = []
        self.closing: asyncio.Task[None] | None = None

    def submit(self, texts: list[str]) -> None:
        items: list[Item] = [Row(("t",), (text,)) for text in texts]
        if not self.engine.spec.row_wise:
            items = [Request(Table(("t",), [(text,)])) for text in texts]
        self.calls.append((texts, self.loop.time(), asyncio.create_task(self.plane.submit(items))))

    def turn(self, choice: int) -> None:
        """One of the posted calls is made; whoever posted it learns of it by the loop."""
        if self.jobs:
            self.jobs.pop(choice % len(self.jobs))[1]()

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)
        runs = [thread for thread, _ in self.jobs if "run" in thread.name]
        assert len(runs) <= (self.engine.spec.slots if self.engine.spec.thread_safe else 1)
        waiting = self.plane.waiting_items
        if waiting and not self.plane._preparing:  # work-conserving: something waits only where every slot is taken
            assert len(runs) == (self.engine.spec.slots if self.engine.spec.thread_safe else 1)

    async def finish(self) -> None:
        if self.closing is None:
            self.closing = asyncio.create_task(self.plane.close())
        while not self.closing.done():
            self.turn(0)
            await self.settle()
        for texts, at, task in self.calls:
            self.check(texts, at, task)
        self.keep_books()

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

    def keep_books(self) -> None:
        assert self.engine.closed
        assert not self.plane.waiting_items
        assert not self.plane.waiting_tokens
        assert not self.plane._in_flight
        assert all(thread.ended for thread in self.plane._threads)  # type: ignore[attr-defined]
        if self.engine.spec.pure:
            assert self.books.fresh == self.books.ran_items + self.books.dropped_items
            assert max(self.engine.computed.values(), default=1) == 1, "an answer that is known is not computed again"


TEXTS = st.sampled_from(["", "a", "bb", "cc", "d" * 9, "e" * 30, POISON])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(TEXTS, max_size=4)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("turn"), st.integers(0, 5)),
        st.tuples(st.just("turn"), st.integers(0, 5)),
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
    digest=st.just(""),
    slots=st.integers(1, 3),
    overlaps=st.booleans(),
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(STEPS, SPECS, st.sampled_from([10, 10_000]))
def test_in_any_order(steps: list[tuple[str, Any]], spec: EngineSpec, queue_tokens: int) -> None:
    async def scenario(loop: VirtualLoop) -> None:
        world = World(loop, spec, PlaneOptions(deadline_s=DEADLINE_S, queue_tokens=queue_tokens))
        for step, argument in steps:
            if step == "submit":
                unique = not spec.pure
                world.submit([f"{text}{len(world.calls)}.{i}" if unique else text for i, text in enumerate(argument)])
            elif step == "cancel" and world.calls:
                world.calls[argument % len(world.calls)][2].cancel()
            elif step == "turn":
                world.turn(argument)
            elif step == "wait":
                loop.advance(argument)
            elif step == "close" and world.closing is None:
                world.closing = asyncio.create_task(world.plane.close())
            await world.settle()
        await world.finish()

    run(scenario, jump=False)
