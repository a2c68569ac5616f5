"""The data plane: items of many callers through one engine.

Work-conserving, without a timer: whenever the engine frees, the next window is taken from what waits.  All bookkeeping
happens on the event loop, by the loop's clock; threads only call the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from likewise.core.engine import Engine, Work
from likewise.core.errors import DeadlineExceeded, Draining, ModelRaised
from likewise.core.isolation import isolate, model_aborted
from likewise.core.items import Item
from likewise.core.keys import item_key
from likewise.core.results import Failed, Ok, Result
from likewise.dataplane.admission import Admission
from likewise.dataplane.cache import AnswerCache
from likewise.dataplane.calls import PendingCall, QueueEntry, Waiting
from likewise.dataplane.observer import Observer, Ran
from likewise.dataplane.thread import DaemonThread, Thread

W = TypeVar("W")
R = TypeVar("R")
Prepared = Sequence[Work | Failed]
"""One entry an item: it as the engine wants it, or why that cannot be."""

PREPARE_AT_ONCE = 256  # items; a long request then overlaps its own tokenization
KEYS_ON_LOOP = 256  # items; more are hashed in a thread, so that others are served meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneOptions:
    """deadline_s: seconds for a call. queue_tokens: what may wait. cache_bytes: for answers of a pure engine."""

    deadline_s: float = 60.0
    queue_tokens: int = 4_000_000
    cache_bytes: int = 64 * 1024 * 1024


class DataPlane:
    """One engine behind any number of concurrent callers.

    Create and use it on one event loop.  Items of a model that is not row-wise (`Request`s) go through alone; as many
    runs at a time as the engine's `slots`, and one where it is not thread safe.  Where the engine is pure, equal items
    are computed once: from the cache, or together with the one that is on its way.
    """

    def __init__(
        self,
        engine: Engine,
        options: PlaneOptions | None = None,
        *,
        observer: Observer | None = None,
        new_thread: Callable[[str], Thread] = DaemonThread,
    ) -> None:
        options = options or PlaneOptions()
        self._engine = engine
        self._spec = engine.spec
        self._budget = max(1, self._spec.budget)
        self._deadline_s = options.deadline_s
        self._observer = observer or Observer()
        self._loop = asyncio.get_running_loop()
        slots = max(1, self._spec.slots) if self._spec.thread_safe else 1
        self._free = [new_thread(f"likewise-run-{n}") for n in range(slots)]
        self._preparer = new_thread("likewise-prepare") if self._spec.overlaps else None
        self._threads = [*self._free, *([self._preparer] if self._preparer else [])]
        self._admission = Admission(
            self._spec, slots=slots, deadline_s=options.deadline_s, queue_tokens=options.queue_tokens
        )
        self._cache = AnswerCache(options.cache_bytes)
        self._raw = Waiting()
        self._ready = Waiting()
        self._flying: dict[bytes, QueueEntry] = {}
        self._calls: set[PendingCall] = set()
        self._busy = 0  # threads at work
        self._preparing: list[QueueEntry] = []
        self._turning = False
        self._closing = False
        self._quiet: asyncio.Future[None] | None = None

    @property
    def waiting_items(self) -> int:
        """Items that nobody computes yet."""
        return len(self._raw) + len(self._ready)

    @property
    def waiting_tokens(self) -> int:
        """Their tokens; an item that is not tokenized yet counts as the average one."""
        return self._raw.tokens + self._ready.tokens

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """One result an item, in order.

        Cancelling drops what still waits of this call and touches no other.  Raises Overloaded at once where the
        answer could not come in time, DeadlineExceeded where it did not, Draining once `close` was called.
        """
        keys = await self._keys(items)
        if self._closing:
            raise Draining("the server is stopping", remedy="send the request to another server, or try again")
        call = PendingCall(len(items))
        if self._answered(call, items, keys):
            return call.results
        call.done = self._loop.create_future()
        self._calls.add(call)
        timer = self._loop.call_later(self._deadline_s, self._expire, call.done)
        try:
            return await call.done
        finally:
            timer.cancel()
            call.done = None  # as it may hold an error that holds this frame
            self._calls.discard(call)
            if call.missing:
                self._abandon(call)
            self._rest()

    async def close(self) -> None:
        """Take no more, answer what was taken, release the engine.

        Waits for a run that has begun, however long it takes; cancelling it leaves the engine as it is.
        """
        self._closing = True
        while self._calls or self._busy:
            self._quiet = self._loop.create_future()
            await self._quiet
        closed: asyncio.Future[None] = self._loop.create_future()
        self._free[0].post(partial(self._close_engine, closed))
        await closed
        for thread in self._threads:
            thread.shutdown()

    # --- from the caller to the queue --------------------------------------------------------------------------------

    async def _keys(self, items: Sequence[Item]) -> Sequence[bytes | None]:
        if not self._spec.pure:
            return [None] * len(items)
        if len(items) <= KEYS_ON_LOOP:
            return [item_key(item) for item in items]
        return await asyncio.to_thread(lambda: [item_key(item) for item in items])

    def _answered(self, call: PendingCall, items: Sequence[Item], keys: Sequence[bytes | None]) -> bool:
        """Whether the cache had everything; what it had not is on its way then.  Raises Overloaded."""
        now, cost = self._loop.time(), self._admission.guess
        fresh: dict[object, QueueEntry] = {}
        found: list[tuple[QueueEntry, int]] = []
        for place, (item, key) in enumerate(zip(items, keys, strict=True)):
            if key is not None and (hit := self._cache.get(key)) is not None:
                self._observer.hit()
                call.settle(place, hit)
                continue
            entry = fresh.get(key) or self._flying.get(key) if key is not None else None
            if entry is None:
                entry = fresh[key or place] = QueueEntry(item, key, now, cost)
            found.append((entry, place))
        self._admit(fresh, now)
        for entry, place in found:
            entry.waiters.append((call, place))
            call.entries.append(entry)
        if self._spec.pure and found:
            self._observer.missed(len(fresh))
            self._observer.shared(len(found) - len(fresh))
        return not found

    def _admit(self, fresh: Mapping[object, QueueEntry], now: float) -> None:
        """Into the queue, where there is room.  Raises Overloaded."""
        if not fresh:
            return
        refusal = self._admission.refusal(
            waiting=(self.waiting_items, self.waiting_tokens),
            new=(len(fresh), sum(entry.cost for entry in fresh.values())),
            now=now,
        )
        if refusal is not None:
            self._observer.shed(refusal.reason)
            try:
                raise refusal.error
            finally:
                del refusal  # or the error would hold this frame, and the frame the error, until a garbage collection
        for entry in fresh.values():
            self._raw.add(entry)
            if entry.key is not None:
                self._flying[entry.key] = entry
        self._turn_soon()

    def _abandon(self, call: PendingCall) -> None:
        """Its caller waits no more: what nobody else waits for, and nobody computes yet, goes."""
        for entry in call.entries:
            if not entry.leave(call) and (self._raw.drop(entry) or self._ready.drop(entry)):
                self._land(entry)
                self._observer.dropped(1)

    def _expire(self, done: asyncio.Future[list[Result]]) -> None:
        if not done.done():
            late = f"no answer within {self._deadline_s:g} s"
            done.set_exception(DeadlineExceeded(late, remedy="send fewer rows a request, or raise the deadline"))

    # --- from the queue to the engine --------------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        """Once the loop has read what it has read by now, so that requests that came together go together."""
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Give each free thread what it may do."""
        self._turning = False
        while self._free and (self._ready or self._raw):
            self._start(self._window())
        if self._raw and self._preparer is not None and not self._preparing:
            self._preparing = self._raw.take(PREPARE_AT_ONCE)
            self._busy += 1
            items = [entry.item for entry in self._preparing]
            self._preparer.post(partial(self._prepare, items))

    def _window(self) -> list[QueueEntry]:
        """What goes next; where nothing is ready, what is not tokenized yet: a guess of what fits."""
        if not self._spec.row_wise:
            return (self._ready or self._raw).take(1)
        return self._ready.take_window(self._budget) if self._ready else self._raw.take(self._budget, self._budget)

    def _start(self, entries: list[QueueEntry]) -> None:
        thread = self._free.pop()
        self._busy += 1
        self._admission.began(thread, sum(entry.cost for entry in entries), self._loop.time())
        thread.post(partial(self._run, thread, entries))

    # --- on the threads ----------------------------------------------------------------------------------------------

    def _prepare(self, items: list[Item]) -> None:
        self._tell(self._prepared, _contained(self._engine.prepare, items))

    def _run(self, thread: Thread, entries: list[QueueEntry]) -> None:
        ready: Prepared = [entry.work for entry in entries if entry.work is not None]
        prepared = ready or _contained(self._engine.prepare, [entry.item for entry in entries])
        self._tell(self._ran, thread, entries, prepared, _results(self._engine, prepared))

    def _close_engine(self, closed: asyncio.Future[None]) -> None:
        try:
            self._engine.close()
        finally:
            self._tell(_resolve, closed)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(what, *arguments)

    # --- back on the loop --------------------------------------------------------------------------------------------

    def _prepared(self, prepared: Prepared) -> None:
        entries, self._preparing = self._preparing, []
        self._busy -= 1
        self._cost(entries, prepared)
        for entry, one in zip(entries, prepared, strict=True):
            if isinstance(one, Failed):
                self._settle(entry, one)
            elif entry.waiters:
                self._ready.add(entry)
            else:
                self._land(entry)
                self._observer.dropped(1)
        self._turn()
        self._rest()

    def _ran(self, thread: Thread, entries: list[QueueEntry], prepared: Prepared, results: Sequence[Result]) -> None:
        now = self._loop.time()
        self._busy -= 1
        self._free.append(thread)
        self._cost(entries, prepared)
        began = self._admission.ended(thread, sum(entry.cost for entry in entries), now)
        self._turn()  # the engine first, then the answers
        self._observer.ran(_report(entries, results, began, now))
        for entry, result in zip(entries, results, strict=True):
            self._settle(entry, result)
        self._rest()

    def _cost(self, entries: Sequence[QueueEntry], prepared: Prepared) -> None:
        """What was a guess is known now."""
        for entry, one in zip(entries, prepared, strict=True):
            if isinstance(one, Work):
                entry.work, entry.cost = one, max(1, one.cost)
        self._admission.model.see([entry.cost for entry in entries])

    def _settle(self, entry: QueueEntry, result: Result) -> None:
        self._land(entry)
        if entry.key is not None and isinstance(result, Ok):
            self._cache.put(entry.key, result)
        waiters, entry.waiters = entry.waiters, []  # or calls and entries would hold each other
        for call, place in waiters:
            call.settle(place, result)

    def _land(self, entry: QueueEntry) -> None:
        if entry.key is not None and self._flying.get(entry.key) is entry:
            del self._flying[entry.key]

    def _rest(self) -> None:
        """Wake `close` once nothing is left."""
        if self._quiet is not None and not self._quiet.done() and not (self._calls or self._busy):
            self._quiet.set_result(None)


def _results(engine: Engine, prepared: Prepared) -> list[Result]:
    """One an item, in order: what could be prepared is run."""
    ran = iter(_contained(engine.run, [one for one in prepared if isinstance(one, Work)]))
    return [one if isinstance(one, Failed) else next(ran) for one in prepared]


def _contained(stage: Callable[[Sequence[W]], list[R | Failed]], batch: Sequence[W]) -> list[R | Failed]:
    """One result an entry; what a model does to its thread (`sys.exit()` included) ends here, never in the server."""
    try:
        return isolate(stage, batch)
    except BaseException as error:  # noqa: BLE001
        return [Failed(model_aborted(error)) for _ in batch]


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _report(entries: Sequence[QueueEntry], results: Sequence[Result], began: float, now: float) -> Ran:
    costs = [entry.cost for entry in entries]
    return Ran(
        items=len(costs),
        tokens=sum(costs),
        padded=len(costs) * max(costs),
        seconds=now - began,
        waited=[began - entry.arrived for entry in entries],
        raised=sum(isinstance(one, Failed) and isinstance(one.error, ModelRaised) for one in results),
    )
