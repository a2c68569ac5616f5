"""The data plane: runs the items of many callers through one engine.

Work-conserving, without a batching timer: whenever the engine is free, the next window is taken from the queue.  All
bookkeeping happens on the event loop, with the loop's clock; threads only call the engine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from likewise.core.engine import LATE, ContainedEngine, Engine, Work
from likewise.core.errors import (
    DeadlineExceeded,
    Draining,
    LikewiseError,
    ModelRaised,
    NotReady,
    RunTimeout,
    WorkerDied,
)
from likewise.core.isolation import answers, isolate, row_error
from likewise.core.items import Item
from likewise.core.keys import item_key
from likewise.core.results import Failed, Ok, Result
from likewise.dataplane.admission import Admission
from likewise.dataplane.cache import ResultCache
from likewise.dataplane.calls import EntryQueue, PendingCall, QueueEntry
from likewise.dataplane.observer import Observer, RunStats
from likewise.dataplane.runs import CurrentRuns, Run
from likewise.dataplane.suspects import Suspects
from likewise.dataplane.thread import DaemonThread, Thread
from likewise.dataplane.timing import Timing, measure

PREPARE_AT_ONCE = 256  # items, so that the runs of a long request overlap with its own tokenization
KEYS_ON_LOOP = 256  # items; more are hashed in a thread, so that the loop is not blocked


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneOptions:
    """deadline_s: deadline of a call; queue_tokens: limit of the queue; cache_bytes: cache size for a pure engine.

    run_timeout_s: seconds after which a run of the engine has failed; 0 for no limit.  A `ContainedEngine` ends it.
    """

    deadline_s: float = 60.0
    run_timeout_s: float = 0.0
    queue_tokens: int = 4_000_000
    cache_bytes: int = 64 * 1024 * 1024


class DataPlane:
    """One engine behind any number of concurrent callers.

    Create and use it on one event loop.  Items of a model that is not row-wise (`Request`s) are run one at a time.
    There are as many concurrent runs as the engine has `slots`, or one if it is not thread safe.  If the engine is
    pure, equal items are computed once: they are served from the cache or join the one in flight.
    A run that exceeds the run time-out has failed: a `ContainedEngine` ends it, and its items are run again one by one;
    any other engine goes on, and if all its slots do, calls are rejected.
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
        self._contained = engine if isinstance(engine, ContainedEngine) else None
        self._run_timeout_s = options.run_timeout_s
        self._spec = engine.spec
        self._budget = max(1, self._spec.budget)
        self._deadline_s = options.deadline_s
        self._observer = observer or Observer()
        self._loop = asyncio.get_running_loop()
        slots = max(1, self._spec.slots) if self._spec.thread_safe else 1
        self._free = [new_thread(f"likewise-run-{n}") for n in range(slots)]
        self._preparer = new_thread("likewise-prepare") if self._spec.overlaps else None
        self._threads = [*self._free, *([self._preparer] if self._preparer else [])]
        self._slots = slots
        self._admission = Admission(
            self._spec,
            slots=slots,
            deadline_s=options.deadline_s,
            queue_tokens=options.queue_tokens,
            run_timeout_s=options.run_timeout_s,
        )
        self._new_thread = new_thread
        if self._contained is not None:
            self._runs = CurrentRuns(self._loop, LATE * options.run_timeout_s, self._late)
        else:
            self._runs = CurrentRuns(self._loop, options.run_timeout_s, self._overdue)
        self._suspects = self._retries(self._contained, new_thread) if self._contained is not None else None
        self._cache = ResultCache(options.cache_bytes)
        self._raw = EntryQueue()
        self._ready = EntryQueue()
        self._in_flight: dict[bytes, QueueEntry] = {}
        self._calls: set[PendingCall] = set()
        self._measured = 0  # number of calls with a timing
        self._busy = 0  # number of running threads
        self._preparing: list[QueueEntry] = []
        self._dispatch_scheduled = False
        self._closing = False
        self._idle: asyncio.Future[None] | None = None
        self._hashing = asyncio.Lock()  # more threads would only take the interpreter from the loop

    @property
    def busy(self) -> bool:
        """Whether a run is in progress."""
        return self._busy > 0

    @property
    def waiting_items(self) -> int:
        """Number of items in the queue."""
        return len(self._raw) + len(self._ready)

    @property
    def waiting_tokens(self) -> int:
        """Tokens in the queue; an item that is not tokenized yet counts with the mean cost."""
        return self._raw.tokens + self._ready.tokens

    def check_free(self) -> None:
        """Raise NotReady if no run can be started at present."""
        self.check_usable()
        if self._contained is not None and not self._contained.available:
            because = f": {loss}" if (loss := self._contained.loss) else ""
            raise NotReady(f"no worker can run the model at present{because}", remedy="try again in a few seconds")

    def check_usable(self) -> None:
        """Raise NotReady if the runs of all slots exceed the run time-out and cannot be ended."""
        if self._contained is None and self._runs.overdue == self._slots:
            raise NotReady(
                f"the model has been computing for more than {self._run_timeout_s:g} s, which cannot be interrupted in "
                "the server's process",
                remedy="restart the server; without --in-process it ends such a run itself",
            )

    async def submit(
        self,
        items: Sequence[Item],
        *,
        following: int | None = 0,
        large: bool = False,
        timing: Timing | None = None,
    ) -> list[Result]:
        """Compute one result per item, in order.

        following: how many more items of the same request will be submitted, which are admitted or rejected together
        with these; None: these were admitted so.  large: whether the items are too large to be hashed on the loop.
        timing: measures this call.
        Cancelling drops this call's waiting items and affects no other call.  Raises Overloaded immediately if the
        deadline cannot be met, DeadlineExceeded if it was not, NotReady if all runs exceed the run time-out and cannot
        be ended, Draining after `close` was called.
        """
        keys = await self._keys(items, large=large)
        if self._closing:
            raise Draining("the server is stopping", remedy="send the request to another server, or retry")
        self.check_usable()
        call = PendingCall(len(items)) if timing is None else PendingCall(len(items), timing, time.perf_counter())
        if self._enqueue(call, items, keys, following):
            return call.results
        call.done = self._loop.create_future()
        self._calls.add(call)
        self._measured += timing is not None
        timer = self._loop.call_later(self._deadline_s, self._expire, call.done)
        try:
            return await call.done
        finally:
            timer.cancel()
            self._measured -= timing is not None
            call.done = None  # it may have an error that references this frame
            self._calls.discard(call)
            if call.missing:
                self._abandon(call)
            self._notify_if_idle()

    async def close(self) -> None:
        """Reject new calls, complete the accepted ones, close the engine.

        Waits for the current runs without a time limit; cancelling it leaves the engine open.
        """
        self._closing = True
        while self._calls or self._busy:
            self._idle = self._loop.create_future()
            await self._idle
        closed: asyncio.Future[None] = self._loop.create_future()
        self._free[0].post(partial(self._close_engine, closed))
        await closed
        for thread in self._threads:
            thread.shutdown()
        if self._suspects is not None:
            self._suspects.shutdown()
        self._runs.close()

    # --- from the caller to the queue --------------------------------------------------------------------------------

    async def _keys(self, items: Sequence[Item], *, large: bool) -> Sequence[bytes | None]:
        if not self._spec.pure:
            return [None] * len(items)
        if len(items) <= KEYS_ON_LOOP and not large:
            return [item_key(item) for item in items]
        async with self._hashing:
            return await asyncio.to_thread(lambda: [item_key(item) for item in items])

    def _enqueue(
        self, call: PendingCall, items: Sequence[Item], keys: Sequence[bytes | None], following: int | None
    ) -> bool:
        """Enqueue the items that are not cached; returns whether all were cached.  Raises Overloaded."""
        now, cost = self._loop.time(), self._admission.guess
        fresh: dict[object, QueueEntry] = {}
        pending: list[tuple[QueueEntry, int]] = []
        for index, (item, key) in enumerate(zip(items, keys, strict=True)):
            if key is not None and (hit := self._cache.get(key)) is not None:
                self._observer.hit()
                call.settle(index, hit)
                continue
            entry = fresh.get(key) or self._in_flight.get(key) if key is not None else None
            if entry is None:
                entry = fresh[key or index] = QueueEntry(item, key, now, cost)
            pending.append((entry, index))
        if following is not None:
            self._check_admission(fresh, following, now)
        self._add(fresh)
        for entry, index in pending:
            entry.waiters.append((call, index))
            call.entries.append(entry)
        if self._spec.pure and pending:
            self._observer.missed(len(fresh))
            self._observer.shared(len(pending) - len(fresh))
        if call.timing is not None and self._spec.pure:
            call.timing.looked_up(len(items) - len(pending), len(fresh), len(pending) - len(fresh))
        return not pending

    def _check_admission(self, fresh: Mapping[object, QueueEntry], following: int, now: float) -> None:
        """Raise Overloaded if admission control rejects the new entries and as many `following` ones."""
        if not fresh:
            return
        tokens = sum(entry.cost for entry in fresh.values()) + following * self._admission.guess
        rejection = self._admission.rejection(
            waiting=(self.waiting_items, self.waiting_tokens), new=(len(fresh) + following, tokens), now=now
        )
        if rejection is not None:
            self._observer.shed(rejection.reason)
            try:
                raise rejection.error
            finally:
                del rejection  # breaks the reference cycle between the error and this frame

    def _add(self, fresh: Mapping[object, QueueEntry]) -> None:
        """Add new entries to the queue."""
        if not fresh:
            return
        for entry in fresh.values():
            self._raw.add(entry)
            if entry.key is not None:
                self._in_flight[entry.key] = entry
        self._schedule_dispatch()

    def _abandon(self, call: PendingCall) -> None:
        """Drop the queued items of a cancelled call that no other call waits for."""
        for entry in call.entries:
            if not entry.leave(call) and (self._raw.drop(entry) or self._ready.drop(entry)):
                self._drop(entry)

    def _expire(self, done: asyncio.Future[list[Result]]) -> None:
        if not done.done():
            cause = f"no prediction within {self._deadline_s:g} s"
            done.set_exception(DeadlineExceeded(cause, remedy="send fewer rows per request, or raise the deadline"))

    # --- from the queue to the engine --------------------------------------------------------------------------------

    def _schedule_dispatch(self) -> None:
        """Dispatch in the loop's next iteration, so that requests that arrived together are batched together."""
        if not self._dispatch_scheduled:
            self._dispatch_scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Start work on each free thread."""
        self._dispatch_scheduled = False
        while self._free and (self._ready or self._raw):
            self._start(self._window())
        if self._raw and self._preparer is not None and not self._preparing:
            self._preparing = self._raw.take(PREPARE_AT_ONCE)
            self._busy += 1
            items = [entry.item for entry in self._preparing]
            self._preparer.post(partial(self._prepare, items))

    def _window(self) -> list[QueueEntry]:
        """Take the next window; if nothing is prepared, take unprepared items by their estimated cost."""
        if not self._spec.row_wise:
            return (self._ready or self._raw).take(1)
        return self._ready.take_window(self._budget) if self._ready else self._raw.take(self._budget, self._budget)

    def _start(self, entries: list[QueueEntry]) -> None:
        thread = self._free.pop()
        self._busy += 1
        self._admission.run_started(thread, sum(entry.cost for entry in entries), self._loop.time())
        self._runs.begin(thread, entries)
        thread.post(partial(self._run, thread, entries))

    # --- on the threads ----------------------------------------------------------------------------------------------

    def _prepare(self, items: list[Item]) -> None:
        self._call_on_loop(self._prepared, isolate(self._engine.prepare, items))

    def _run(self, thread: Thread, entries: list[QueueEntry]) -> None:
        try:
            found = self._answers(entries)
        except BaseException as error:  # noqa: BLE001  the engine's process was ended, or the engine is wrong
            self._call_on_loop(self._lost, thread, entries, row_error(error))
        else:
            self._call_on_loop(self._ran, thread, entries, found)

    def _answers(self, entries: list[QueueEntry]) -> list[tuple[int, Result]]:
        if self._contained is not None:
            return self._contained.answer([entry.item for entry in entries])
        if work := [entry.work for entry in entries if entry.work is not None]:
            return [(each.cost, result) for each, result in zip(work, isolate(self._engine.run, work), strict=True)]
        return answers(self._engine, [entry.item for entry in entries])

    def _retries(self, engine: ContainedEngine, new_thread: Callable[[str], Thread]) -> Suspects:
        settle, drop = (partial(self._call_on_loop, call) for call in (self._settle, self._drop_suspect))
        return Suspects(engine, self._run_timeout_s, new_thread("likewise-again"), settle, drop)

    def _close_engine(self, closed: asyncio.Future[None]) -> None:
        try:
            self._engine.close()
        finally:
            self._call_on_loop(_resolve, closed)

    def _call_on_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody waits for it
            self._loop.call_soon_threadsafe(callback, *arguments)

    # --- back on the loop --------------------------------------------------------------------------------------------

    def _prepared(self, prepared: Sequence[Work | Failed]) -> None:
        entries, self._preparing = self._preparing, []
        self._busy -= 1
        self._record_costs(entries, [each.cost if isinstance(each, Work) else 0 for each in prepared])
        for entry, prep in zip(entries, prepared, strict=True):
            if isinstance(prep, Failed):
                self._settle(entry, prep)
            elif entry.waiters:
                entry.work = prep
                self._ready.add(entry)
            else:
                self._drop(entry)
        self._dispatch()
        self._notify_if_idle()

    def _ran(self, thread: Thread, entries: list[QueueEntry], found: Sequence[tuple[int, Result]]) -> None:
        self._record_costs(entries, [cost for cost, _ in found])
        run = self._release(thread)
        if not run.overdue:
            self._admission.learn(run.started, sum(entry.cost for entry in entries), self._loop.time())
        self._dispatch()  # restart the engine before delivering the results
        results = [result for _, result in found]
        if self._measured:
            measure(entries, run.began)
        self._observer.ran(_run_stats(entries, results, run.started, self._loop.time()))
        for entry, result in zip(entries, results, strict=True):
            self._settle(entry, result)
        self._notify_if_idle()

    def _lost(self, thread: Thread, entries: list[QueueEntry], error: LikewiseError) -> None:
        """A run has no results: run its items again if one of them may have ended it, and it is not known which."""
        run = self._release(thread)
        if self._measured:
            measure(entries, run.began, error.code)
        self._dispatch()
        timed_out, died = isinstance(error, RunTimeout), isinstance(error, WorkerDied)
        if timed_out or died:
            self._observer.ended("timeout" if timed_out else "death", error.cause)
        if self._suspects is not None and (died or (timed_out and len(entries) > 1)):
            self._observer.repeated(len(entries))
            self._suspects.post(entries, error)
        else:
            for entry in entries:
                self._settle(entry, Failed(error))
        self._notify_if_idle()

    def _late(self, run: Run) -> None:  # noqa: ARG002  whichever it is
        """A run takes long: another thread takes its place, as an additional process does."""
        thread = self._new_thread("likewise-run")
        self._free.append(thread)
        self._threads.append(thread)
        self._dispatch()

    def _overdue(self, run: Run) -> None:
        """A run takes too long and cannot be ended: its calls fail, and all that wait if no slot is left."""
        timeout = RunTimeout(
            f"the model did not return within {self._run_timeout_s:g} s",
            remedy="correct the row or the model, or raise the run time-out",
        )
        self._observer.ended("overdue", timeout.cause)
        if self._measured:
            measure(run.entries, run.began, timeout.code)
        for entry in run.entries:
            self._settle(entry, Failed(timeout))
        try:
            self.check_usable()
        except NotReady as error:
            for entry in [entry for queue in (self._raw, self._ready) for entry in queue.take(len(queue))]:
                self._settle(entry, Failed(error))

    def _release(self, thread: Thread) -> Run:
        self._busy -= 1
        self._admission.run_finished(thread)
        run = self._runs.end(thread)
        if run.overdue and self._contained is not None:  # another thread has taken its place
            self._threads.remove(thread)
            thread.shutdown()
        else:
            self._free.append(thread)
        return run

    def _record_costs(self, entries: Sequence[QueueEntry], costs: Sequence[int]) -> None:
        """Replace the estimated costs of entries by the actual ones; 0 if an item was not prepared."""
        for entry, cost in zip(entries, costs, strict=True):
            entry.cost = cost or entry.cost
        self._admission.model.record_costs([entry.cost for entry in entries])

    def _settle(self, entry: QueueEntry, result: Result) -> None:
        self._remove_in_flight(entry)
        if entry.key is not None and isinstance(result, Ok):
            self._cache.put(entry.key, result)
        waiters, entry.waiters = entry.waiters, []  # breaks the reference cycle between calls and entries
        for call, index in waiters:
            call.settle(index, result)

    def _drop(self, entry: QueueEntry) -> None:
        """Forget an entry that no call waits for."""
        self._remove_in_flight(entry)
        self._observer.dropped(1)

    def _drop_suspect(self, entry: QueueEntry) -> None:
        if entry.waiters and self._suspects is not None:  # a call has joined it in the meantime
            self._suspects.post([entry])
        else:
            self._drop(entry)

    def _remove_in_flight(self, entry: QueueEntry) -> None:
        if entry.key is not None and self._in_flight.get(entry.key) is entry:
            del self._in_flight[entry.key]

    def _notify_if_idle(self) -> None:
        """Wake `close` when no calls or runs are left."""
        if self._idle is not None and not self._idle.done() and not (self._calls or self._busy):
            self._idle.set_result(None)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _run_stats(entries: Sequence[QueueEntry], results: Sequence[Result], started: float, now: float) -> RunStats:
    costs = [entry.cost for entry in entries]
    return RunStats(
        items=len(costs),
        tokens=sum(costs),
        padded=len(costs) * max(costs),
        seconds=now - started,
        waited=[started - entry.arrived for entry in entries],
        raised=sum(isinstance(result, Failed) and isinstance(result.error, ModelRaised) for result in results),
    )
