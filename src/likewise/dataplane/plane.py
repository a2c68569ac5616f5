"""The data plane: items of many callers through one engine.

Work-conserving, without a timer: whenever the engine frees, the next window is taken from what waits.  Tokenization
(`prepare`) and compute (`run`) have a thread each, so that they overlap.  All bookkeeping happens on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from likewise.core.engine import Engine, Work
from likewise.core.errors import Draining, ModelFailed
from likewise.core.isolate import isolate
from likewise.core.items import Item
from likewise.core.results import Failed, Ok, Result
from likewise.dataplane.calls import Call, Waiting
from likewise.dataplane.thread import DaemonThread

T = TypeVar("T")

PREPARE_AT_ONCE = 256  # items; a long request then overlaps its own tokenization


class DataPlane:
    """One engine behind any number of concurrent callers.

    Create and use it on one event loop.  Items of a model that is not row-wise (`Request`s) go through alone.
    One `run` at a time, which is right for an engine that is `thread_safe` and for one that is not.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._row_wise = engine.spec.row_wise
        self._budget = max(1, engine.spec.budget)
        self._raw = Waiting()
        self._ready = Waiting()
        self._pumps: dict[str, asyncio.Task[None]] = {}
        self._calls: set[Call] = set()
        self._threads = {stage: DaemonThread(f"likewise-{stage}") for stage in ("prepare", "run")}
        self._closing = False

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """One result an item, in order.

        Cancelling drops what still waits of this call and touches no other.  Raises Draining once `close` was called.
        """
        if self._closing:
            raise Draining("the server is stopping", remedy="send the request to another server, or try again")
        if not items:
            return []
        call = Call(items)
        for entry in call.entries:
            self._raw.add(entry)
        self._calls.add(call)
        self._wake("prepare", self._raw, self._prepare_some)
        try:
            return await call.done
        finally:
            self._calls.discard(call)
            for entry in call.entries:
                self._raw.drop(entry)
                self._ready.drop(entry)

    async def close(self) -> None:
        """Take no more, answer what was taken, release the engine.

        Waits for a run that has begun, however long it takes; cancelling it leaves the engine as it is.
        """
        self._closing = True
        while self._calls or self._pumps:
            pending: list[asyncio.Future[Any]] = [*self._pumps.values(), *(call.done for call in self._calls)]
            await asyncio.wait(pending)
            await asyncio.sleep(0)  # those who waited for these leave the sets
        await asyncio.get_running_loop().run_in_executor(self._threads["run"], self._engine.close)
        for thread in self._threads.values():
            thread.shutdown()

    def _wake(self, stage: str, waiting: Waiting, step: Callable[[], Awaitable[None]]) -> None:
        if stage not in self._pumps:
            self._pumps[stage] = asyncio.create_task(self._pump(stage, waiting, step))

    async def _pump(self, stage: str, waiting: Waiting, step: Callable[[], Awaitable[None]]) -> None:
        try:
            while waiting:
                await step()
        finally:  # at once, so that whoever adds next wakes a new one
            del self._pumps[stage]

    async def _prepare_some(self) -> None:
        entries = self._raw.take(PREPARE_AT_ONCE)
        prepared = await self._in_thread("prepare", self._prepare, [entry.item for entry in entries])
        for entry, result in zip(entries, prepared, strict=True):
            if isinstance(result, Ok) and isinstance(result.value, Work):
                entry.work = result.value
                if not entry.call.gone:
                    self._ready.add(entry)
            else:
                entry.call.settle(entry.place, result)
        if self._ready:
            self._wake("run", self._ready, self._run_window)

    async def _run_window(self) -> None:
        entries = self._ready.take_window(self._budget) if self._row_wise else self._ready.take(1)
        results = await self._in_thread("run", self._run, [entry.work for entry in entries if entry.work])
        for entry, result in zip(entries, results, strict=True):
            entry.call.settle(entry.place, result)

    async def _in_thread(
        self, stage: str, function: Callable[[Sequence[T]], list[Result]], batch: list[T]
    ) -> list[Result]:
        return await asyncio.get_running_loop().run_in_executor(self._threads[stage], _contained, function, batch)

    def _prepare(self, items: Sequence[Item]) -> list[Result]:
        """`Ok(work)` or `Failed` an item; an engine that raises for one item does not fail its neighbours."""
        return isolate(
            lambda some: [one if isinstance(one, Failed) else Ok(one) for one in self._engine.prepare(some)], items
        )

    def _run(self, work: Sequence[Work]) -> list[Result]:
        return isolate(self._engine.run, work)


def _contained(function: Callable[[Sequence[T]], list[Result]], batch: list[T]) -> list[Result]:
    """What a model does to its thread (`sys.exit()` included) ends here, and never in the server."""
    try:
        return function(batch)
    except BaseException as error:  # noqa: BLE001
        failure = ModelFailed(
            f"the model broke off with {type(error).__name__}: {str(error)[:500]}",
            remedy="read the server's log; mend the model",
        )
        return [Failed(failure) for _ in batch]
