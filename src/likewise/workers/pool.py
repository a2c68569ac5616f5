"""The pool of workers: one engine that runs a batch per worker concurrently and replaces workers that die."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

from likewise.core.backoff import Backoff
from likewise.core.cores import thread_environment, usable_cores
from likewise.core.engine import Engine, EngineSpec, Work
from likewise.core.errors import Draining, LikewiseError, ModelFailed, RowRefused, WorkerDied, WrongUsage
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.workers.messages import PROTOCOL, pack, sendable, unpack
from likewise.workers.worker import KILLED_S, Worker, kill_all, stop_all

E = TypeVar("E")

logger = logging.getLogger("likewise.workers")

START_TIMEOUT_S = 600.0
LOAD_ATTEMPTS = 3
FIRST_S, LONGEST_S, STEADY_S = 0.1, 10.0, 30.0  # backoff between restarts of a worker


def open_pool(
    opener: Callable[[], Engine],
    count: int,
    *,
    start_timeout_s: float = START_TIMEOUT_S,
    load_attempts: int = LOAD_ATTEMPTS,
    clock: Callable[[], float] = time.monotonic,
) -> WorkerPool:
    """Start `count` processes that each load the engine `opener()`; returns when all have loaded.

    opener: a function of an importable module or a `functools.partial` of one, never of `__main__`.
    start_timeout_s: seconds for one process to load.  load_attempts: how often a replacement may fail to load before
    waiting calls fail.  Raises a LikewiseError of the opener, EngineUnavailable for its other errors; WorkerDied (a
    process exited while loading, or took too long), WrongUsage (the opener cannot be pickled, or the count is below 1).
    """
    if count < 1:
        raise WrongUsage(f"invalid number of workers: {count}", remedy="set at least 1 worker")
    start = partial(
        Worker, _first_message(opener), start_timeout_s, thread_environment(os.environ, usable_cores() // count)
    )
    workers: list[Worker] = []
    try:
        for _ in range(count):
            workers.append(start())  # noqa: PERF401  if one fails to start, the earlier ones must be killed
        specs = [worker.load() for worker in workers]
    except BaseException:
        kill_all(workers)
        raise
    spec = replace(specs[0], thread_safe=True, slots=count)
    return WorkerPool(workers, spec, start, load_attempts=load_attempts, clock=clock)


def _first_message(opener: Callable[[], Engine]) -> bytes:
    try:
        pickled = pickle.dumps(opener, PROTOCOL)
    except Exception as error:
        raise WrongUsage(
            f"the opener cannot be pickled: {error}",
            remedy="pass a module-level function, or a functools.partial of one",
        ) from error
    return pack((list(sys.path), pickled))  # the opener is pickled separately: importing its module needs that path


class WorkerPool:
    """A `core.engine.Engine` over processes that have loaded the same engine; created by `open_pool`.

    All methods are thread-safe.  `run` waits for an idle worker.  If a worker dies, each item of the calls that it was
    processing becomes `Failed(WorkerDied)`, and another worker is started.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        spec: EngineSpec,
        start: Callable[[], Worker],
        *,
        load_attempts: int,
        clock: Callable[[], float],
    ) -> None:
        self._spec = spec
        self._start = start
        self._load_attempts = load_attempts
        self._clock = clock
        self._changed = threading.Condition()  # guards the attributes below
        self._live = list(workers)
        self._idle = deque(workers)
        self._known = set(workers)
        self._outage: str | None = None
        self._restarts = 0
        self._turns = itertools.count()
        self._closed = threading.Event()
        self._keepers = [
            threading.Thread(target=self._keep, args=(worker,), name="likewise-keep", daemon=True) for worker in workers
        ]
        for keeper in self._keepers:
            keeper.start()

    @property
    def spec(self) -> EngineSpec:
        """The engine's spec, with one slot per worker."""
        return self._spec

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are ready."""
        with self._changed:
            return tuple(worker.pid for worker in self._live)

    @property
    def restarts(self) -> int:
        """Number of replacements started so far, including those that failed to load."""
        return self._restarts

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        """One entry per item, in order; executed in any worker, concurrently with its run."""
        return cast("list[Work | Failed]", _call(self._prepare, items))

    def run(self, work: Sequence[Work]) -> list[Result]:
        """One result per work, in order; all are executed in one worker."""
        return cast("list[Result]", _call(self._run, work))

    def close(self) -> None:
        """Stop all processes, aborting runs in progress. May be called again."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
            known = list(self._known)
        stop_all(known)
        for keeper in self._keepers:
            keeper.join(KILLED_S)

    def _prepare(self, message: bytes) -> bytes:
        # Prefer an idle worker: if the model holds the GIL, a busy one would only prepare after its run.
        with self._changed:
            self._await(lambda: bool(self._live))
            candidates = self._idle or self._live
            worker = self._assigned(candidates[next(self._turns) % len(candidates)])
        try:
            return worker.prepare(message)
        except WorkerDied:
            self._remove(worker)  # immediately, so that no other call uses it
            raise

    def _run(self, message: bytes) -> bytes:
        with self._changed:
            self._await(lambda: bool(self._idle))
            worker = self._assigned(self._idle.popleft())
        try:
            return worker.run(message)
        except WorkerDied:
            self._remove(worker)
            raise
        finally:
            with self._changed:
                if worker in self._live:
                    self._idle.append(worker)
                    self._changed.notify_all()

    def _await(self, available: Callable[[], bool]) -> None:
        """Wait until `available()`. Raises Draining, or WorkerDied if no worker is left and restarts keep failing."""

        def decided() -> bool:
            return self._closed.is_set() or available() or (self._outage is not None and not self._live)

        self._changed.wait_for(decided)
        if self._closed.is_set():
            raise Draining("the workers have been stopped", remedy="send the request to another server, or try again")
        if self._outage is not None and not self._live:
            raise WorkerDied(
                self._outage,
                remedy="see the server's log for the reason, and check the machine's memory; use fewer workers if it "
                "is short",
            )

    def _assigned(self, worker: Worker) -> Worker:
        worker.worked = True
        self._outage = None
        return worker

    def _keep(self, worker: Worker) -> None:
        """The thread of one slot of the pool: replaces its worker whenever that exits."""
        backoff = Backoff(FIRST_S, LONGEST_S, STEADY_S, at_once=True)
        replacement: Worker | None = worker
        while replacement is not None:
            loaded = self._clock()
            replacement.exited.wait()
            delay = backoff.pause_s(self._clock() - loaded, worked=replacement.worked)
            self._remove(replacement)
            self._report_loss(replacement.exit_description, backoff, delay)
            replacement = self._replace(backoff, delay)

    def _replace(self, backoff: Backoff, delay: float) -> Worker | None:
        """Start a worker, retrying until one has loaded; returns None when the pool is closed."""
        while not self._closed.wait(delay):
            try:
                worker = self._start_and_load()
            except LikewiseError as error:
                delay = backoff.pause_s(0.0, worked=False)
                self._report_loss(error.cause, backoff, delay)
                continue
            with self._changed:
                self._live.append(worker)
                self._idle.append(worker)
                self._changed.notify_all()
            return worker
        return None

    def _start_and_load(self) -> Worker:
        with self._changed:
            self._restarts += 1
        worker = self._start()
        with self._changed:
            self._known.add(worker)
        if self._closed.is_set():  # `close` may have missed it
            worker.kill()
        try:
            worker.load()
        except LikewiseError:
            worker.exited.wait(KILLED_S)
            self._remove(worker)
            raise
        return worker

    def _remove(self, worker: Worker) -> None:
        with self._changed:
            self._known.discard(worker)
            if worker in self._live:
                self._live.remove(worker)
            if worker in self._idle:
                self._idle.remove(worker)
            self._changed.notify_all()

    def _report_loss(self, cause: str, backoff: Backoff, delay: float) -> None:
        if self._closed.is_set():
            return
        logger.warning("%s; starting another in %.1f s", cause, delay)
        if backoff.failures < self._load_attempts:
            return
        with self._changed:
            self._outage = (
                f"no worker is running, and the last {backoff.failures} failed before doing any work: {cause}"
            )
            self._changed.notify_all()


def _call(send: Callable[[bytes], bytes], batch: Sequence[E]) -> list[Any]:
    """One result per entry that could be sent, and `Failed` for the others."""
    if not batch:
        return []
    try:
        message = pack(list(batch))
    except Exception:  # noqa: BLE001  some value cannot be packed: find out which
        checked = sendable(batch, _unsendable)
        valid = [entry for entry in checked if not isinstance(entry, Failed)]
        results = iter(_results(send, pack(valid), len(valid)) if valid else [])
        return [entry if isinstance(entry, Failed) else next(results) for entry in checked]
    return _results(send, message, len(batch))


def _results(send: Callable[[bytes], bytes], message: bytes, count: int) -> list[Any]:
    try:
        response = unpack(send(message))
    except LikewiseError as error:
        response = error
    except Exception as error:  # noqa: BLE001  a value's own unpickling may raise anything
        response = ModelFailed(
            f"the worker's response cannot be read: {type(error).__name__}: {str(error)[:300]}",
            remedy="serve the model without workers, or let it return plain values",
        )
    return [Failed(response)] * count if isinstance(response, LikewiseError) else response


def _unsendable(why: str) -> RowRefused:
    return RowRefused(f"the row cannot be sent to a worker: {why}", remedy="send plain values: JSON types or bytes")
