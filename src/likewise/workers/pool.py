"""The pool of workers: one engine that runs a batch per worker concurrently, and ends runs that take too long."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from likewise.core.cores import thread_environment, usable_threads
from likewise.core.engine import LATE, Engine, EngineSpec, Work
from likewise.core.errors import LikewiseError, ModelCrashed, RunTimeout, WorkerDied, WrongUsage
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.workers.fleet import Fleet, FleetOptions
from likewise.workers.messages import PROTOCOL, pack
from likewise.workers.requests import Answers, send_items
from likewise.workers.sizing import fitting
from likewise.workers.worker import KILLED_S, Worker, kill_all

START_TIMEOUT_S = 600.0
LOAD_ATTEMPTS = 3
TICK_S = 0.1  # interval at which the durations of calls are checked


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """run_timeout_s: seconds after which a call's worker is ended; 0 for no limit.

    shrinks: whether there may be fewer workers, if more do not fit into the memory.  warm_up: the items that each
    further worker runs before it gets calls.  start_timeout_s: seconds for one process to load.  load_attempts: how
    often a replacement may fail to load before waiting calls fail.
    """

    run_timeout_s: float = 0.0
    shrinks: bool = False
    warm_up: Callable[[EngineSpec], Sequence[Item]] = lambda _: ()
    start_timeout_s: float = START_TIMEOUT_S
    load_attempts: int = LOAD_ATTEMPTS
    clock: Callable[[], float] = time.monotonic


def open_pool(opener: Callable[[], Engine], count: int, options: PoolOptions | None = None) -> WorkerPool:
    """Start a process that loads the engine `opener()`; returns when it has. `fill` starts the others, up to `count`.

    opener: a function of an importable module or a `functools.partial` of one, never of `__main__`.
    Raises a LikewiseError of the opener, EngineUnavailable for its other errors; WorkerDied (a process exited while
    loading, or took too long), WrongUsage (the opener cannot be pickled, or the count is below 1).
    """
    if count < 1:
        raise WrongUsage(f"invalid number of workers: {count}", remedy="set at least 1 worker")
    options = options or PoolOptions()
    environment = thread_environment(os.environ, usable_threads() // count)
    start = partial(Worker, _first_message(opener), options.start_timeout_s, environment)
    first = start()
    try:
        spec = first.load()
        count = fitting(first.pid, count) if options.shrinks else count
        return WorkerPool(first, replace(spec, thread_safe=True, overlaps=False, slots=count), start, options)
    except BaseException:
        kill_all([first])
        raise


def _first_message(opener: Callable[[], Engine]) -> bytes:
    try:
        pickled = pickle.dumps(opener, PROTOCOL)
    except Exception as error:
        raise WrongUsage(
            f"the opener cannot be pickled: {error}",
            remedy="pass a module-level function, or a functools.partial of one",
        ) from error
    return pack((list(sys.path), pickled))  # the opener is pickled separately: importing its module needs that path


@dataclass(eq=False, slots=True)
class _Call:
    """A request to a worker. started: by time.monotonic.  limit_s: seconds until it is ended, 0 for no limit."""

    started: float
    limit_s: float
    ended: bool = False


class WorkerPool:
    """A `core.engine.ContainedEngine` over processes that have loaded the same engine; created by `open_pool`.

    All methods are thread-safe.  A call waits for an idle worker.  A worker that dies, or is ended because a call takes
    too long, is replaced.  While a call takes long, and while items are run again, there is one worker more than
    `spec.slots`: so there are enough of them for new calls at the time-out, and items that may hang or crash again run
    only in a worker that no other call needs.
    """

    def __init__(
        self, first: Worker, spec: EngineSpec, start: Callable[[], Worker], options: PoolOptions | None = None
    ) -> None:
        options = options or PoolOptions()
        self._spec = spec
        self._run_timeout_s = options.run_timeout_s
        self._warm_up = options.warm_up(spec)
        self._calls: dict[Worker, _Call] = {}  # guarded by `_fleet.changed`, like the next two
        self._counters = Counter[str]()
        self._again = 0  # calls of items that are run again
        self._fleet = Fleet(
            first,
            spec.slots,
            start,
            ready=self._warm,
            extra_wanted=lambda: self._again > 0 or self._late() > 0,
            options=FleetOptions(options.load_attempts, options.shrinks, options.clock),
        )
        self._watcher = threading.Thread(target=self._watch, name="likewise-watch", daemon=True)
        if options.run_timeout_s:
            self._watcher.start()

    @property
    def spec(self) -> EngineSpec:
        """The engine's spec, with one slot per worker."""
        return self._spec

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are ready."""
        with self._fleet.changed:
            return tuple(worker.pid for worker in self._fleet.live)

    @property
    def restarts(self) -> int:
        """Number of replacements started so far, including those that failed to load."""
        return self._fleet.restarts

    @property
    def counters(self) -> Mapping[str, int]:
        """See `core.engine.counters`: of all workers."""
        with self._fleet.changed:
            return dict(self._counters)

    @property
    def available(self) -> bool:
        """Whether a worker is running whose call does not take long."""
        return self._free() > 0

    @property
    def loss(self) -> str:
        """How the last worker ended, or why it did not load; empty if none did."""
        return self._fleet.loss

    def fill(self) -> None:
        """Start the workers that are missing, in the background; call it once."""
        self._fleet.fill()

    def answer(self, items: Sequence[Item], *, alone_s: float | None = None) -> Answers:
        """See `ContainedEngine`; all items are run in one worker."""
        return send_items(
            self._request if alone_s is None else partial(self._request_again, alone_s), items, self._count
        )

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        """One entry per item, without a key: the item itself is prepared in the worker that runs it."""
        return [Work("", 1, item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        """One result per work, in order; all fail if the worker ends."""
        try:
            return [result for _, result in self.answer([each.payload for each in work])]  # type: ignore[misc]
        except LikewiseError as error:
            return [Failed(error) for _ in work]

    def close(self) -> None:
        """Stop all processes, aborting runs in progress. May be called again."""
        self._fleet.close()
        if self._watcher.is_alive():
            self._watcher.join(KILLED_S)

    def _count(self, counted: Mapping[str, int]) -> None:
        if counted:
            with self._fleet.changed:
                self._counters.update(counted)

    def _request(self, message: bytes) -> bytes:
        return self._send(self._fleet.take(), message, self._run_timeout_s)

    def _request_again(self, limit_s: float, message: bytes) -> bytes:
        """The same for an item that is run again, in a worker that no other call needs."""
        fleet = self._fleet
        with fleet.changed:
            self._again += 1
        try:
            fleet.add_extra()
            worker = fleet.take(lambda: self._free() > fleet.kept)
            try:
                return self._send(worker, message, min(limit_s, self._run_timeout_s))
            except WorkerDied as error:
                if worker.killed:  # perhaps by someone else
                    raise
                raise ModelCrashed(error.cause, remedy="correct the row, or fix the model that it crashes") from None
        finally:
            with fleet.changed:
                self._again -= 1

    def _send(self, worker: Worker, message: bytes, limit_s: float) -> bytes:
        call = _Call(time.monotonic(), limit_s)
        with self._fleet.changed:
            self._calls[worker] = call
        try:
            return worker.request(message)
        except WorkerDied:
            self._fleet.remove(worker)  # immediately, so that no other call uses it
            if not call.ended:
                raise
            raise RunTimeout(
                f"the model did not return within {limit_s:g} s, so its process was ended",
                remedy="correct the row or the model, or raise the run time-out",
            ) from None
        finally:
            with self._fleet.changed:
                del self._calls[worker]
            self._fleet.give_back(worker)

    def _warm(self, worker: Worker) -> None:
        """Let a new worker run the items for the warm-up, but no later one if it ends this one."""
        items, self._warm_up = self._warm_up, ()
        send_items(lambda message: self._send(worker, message, self._run_timeout_s), items)
        self._warm_up = items

    def _watch(self) -> None:
        """The thread that ends workers whose calls take too long."""
        while not self._fleet.closed.wait(min(TICK_S, self._run_timeout_s / 20)):
            now = time.monotonic()
            with self._fleet.changed:
                over = {worker: call for worker, call in self._calls.items() if 0 < call.limit_s < now - call.started}
                for worker, call in over.items():
                    worker.overran = call.ended = not worker.stopped  # else it is not the fault of an item
                    worker.kill()
                late = self._late()
            if late:
                self._fleet.add_extra()

    def _late(self) -> int:
        """Number of workers whose calls take long."""
        if not self._run_timeout_s:
            return 0
        before = time.monotonic() - LATE * self._run_timeout_s
        with self._fleet.changed:
            return sum(call.started < before and worker in self._fleet.live for worker, call in self._calls.items())

    def _free(self) -> int:
        """Number of workers that are running, without those whose calls take long."""
        with self._fleet.changed:
            return len(self._fleet.live) - self._late()
