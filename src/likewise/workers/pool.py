"""The workers together: an engine that as many threads may run at once, and that outlives each of its processes."""

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
from likewise.core.cores import usable_cores
from likewise.core.engine import Engine, EngineSpec, Work
from likewise.core.errors import Draining, LikewiseError, ModelFailed, RowRefused, WorkerDied, WrongUsage
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.workers.messages import PROTOCOL, pack, sendable, unpack
from likewise.workers.worker import KILLED_S, Worker, end_all, kill_all

E = TypeVar("E")

logger = logging.getLogger("likewise.workers")

START_TIMEOUT_S = 600.0
LOAD_ATTEMPTS = 3
# Each library makes as many threads as the machine has cores, in every worker, unless told.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",  # tokenizers
)
FIRST_S, LONGEST_S, STEADY_S = 0.1, 10.0, 30.0  # between starts in the place of a worker that ends


def open_pool(
    opener: Callable[[], Engine],
    count: int,
    *,
    start_timeout_s: float = START_TIMEOUT_S,
    load_attempts: int = LOAD_ATTEMPTS,
    clock: Callable[[], float] = time.monotonic,
) -> WorkerPool:
    """`count` processes, in each the engine that `opener()` returns there; ready when all have loaded.

    opener: a module's function or a `functools.partial` of one, never of `__main__`.  start_timeout_s: seconds for one
    process to load.  load_attempts: how often a replacement may fail to load before those who wait for it get an error.
    Raises what the opener raised where that is a LikewiseError, else EngineUnavailable; WorkerDied (a process ended
    while it loaded, or took too long), WrongUsage (an opener that cannot be pickled, a count below 1).
    """
    if count < 1:
        raise WrongUsage(f"{count} workers", remedy="ask for at least 1")
    start = partial(Worker, _first_message(opener), start_timeout_s, worker_environment(count, os.environ))
    workers: list[Worker] = []
    try:
        for _ in range(count):
            workers.append(start())  # noqa: PERF401  those before one that fails must be known
        specs = [worker.load() for worker in workers]
    except BaseException:
        kill_all(workers)
        raise
    spec = replace(specs[0], thread_safe=True, slots=count)
    return WorkerPool(workers, spec, start, load_attempts=load_attempts, clock=clock)


def worker_environment(count: int, inherited: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """`inherited`, and each of `count` workers told its share of the usable cores where the user has not."""
    threads = str(max(1, usable_cores() // count))
    return {**dict.fromkeys(THREAD_VARIABLES, threads), **inherited}


def _first_message(opener: Callable[[], Engine]) -> bytes:
    try:
        pickled = pickle.dumps(opener, PROTOCOL)
    except Exception as error:
        raise WrongUsage(
            f"the opener cannot be pickled: {error}", remedy="pass a module's function, or a functools.partial of one"
        ) from error
    return pack((list(sys.path), pickled))  # the opener apart: its module is found by that path


class WorkerPool:
    """A `core.engine.Engine` over processes that have loaded the same engine; from `open_pool`.

    Any thread may call anything.  `run` takes a worker that is idle, and waits for one.  Where a worker dies, each item
    of the calls that it held is `Failed(WorkerDied)`, and another is started.
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
        self._changed = threading.Condition()  # guards all that follows
        self._live = list(workers)
        self._idle = deque(workers)
        self._known = set(workers)
        self._despair: str | None = None
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
        """The engine's, with a slot a worker."""
        return self._spec

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes that can take work now."""
        with self._changed:
            return tuple(worker.pid for worker in self._live)

    @property
    def restarts(self) -> int:
        """Replacements started so far, those that did not load included."""
        return self._restarts

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        """One entry an item, in order; in any worker, beside its run."""
        return cast("list[Work | Failed]", _asked(self._prepare, items))

    def run(self, work: Sequence[Work]) -> list[Result]:
        """One result a work, in order; all in one worker."""
        return cast("list[Result]", _asked(self._run, work))

    def close(self) -> None:
        """End every process; a run that is under way ends with its process. May be called again."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
            known = list(self._known)
        end_all(known)
        for keeper in self._keepers:
            keeper.join(KILLED_S)

    def _prepare(self, message: bytes) -> bytes:
        # An idle worker first: where the model holds Python's lock, a busy one would prepare after its run.
        with self._changed:
            self._await(lambda: bool(self._live))
            among = self._idle or self._live
            worker = self._employed(among[next(self._turns) % len(among)])
        try:
            return worker.prepare(message)
        except WorkerDied:
            self._remove(worker)  # at once: nobody else may get it
            raise

    def _run(self, message: bytes) -> bytes:
        with self._changed:
            self._await(lambda: bool(self._idle))
            worker = self._employed(self._idle.popleft())
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

    def _await(self, there: Callable[[], bool]) -> None:
        """Until `there()`. Raises Draining, or WorkerDied where no worker lives and none will soon."""

        def decided() -> bool:
            return self._closed.is_set() or there() or (self._despair is not None and not self._live)

        self._changed.wait_for(decided)
        if self._closed.is_set():
            raise Draining("the workers are stopped", remedy="send the request to another server, or try again")
        if self._despair is not None and not self._live:
            raise WorkerDied(
                self._despair,
                remedy="look into the server's log for why, and at the machine's memory; fewer workers need less of it",
            )

    def _employed(self, worker: Worker) -> Worker:
        worker.worked = True
        self._despair = None
        return worker

    def _keep(self, worker: Worker) -> None:
        """A thread for each place in the pool: whenever its worker has ended, another."""
        backoff = Backoff(FIRST_S, LONGEST_S, STEADY_S, at_once=True)
        replacement: Worker | None = worker
        while replacement is not None:
            loaded = self._clock()
            replacement.gone.wait()
            delay = backoff.pause_s(self._clock() - loaded, worked=replacement.worked)
            self._remove(replacement)
            self._lost(replacement.ending, backoff, delay)
            replacement = self._replaced(backoff, delay)

    def _replaced(self, backoff: Backoff, delay: float) -> Worker | None:
        """A worker that has loaded, however many attempts it takes; None once the pool is closed."""
        while not self._closed.wait(delay):
            try:
                worker = self._started()
            except LikewiseError as error:
                delay = backoff.pause_s(0.0, worked=False)
                self._lost(error.cause, backoff, delay)
                continue
            with self._changed:
                self._live.append(worker)
                self._idle.append(worker)
                self._changed.notify_all()
            return worker
        return None

    def _started(self) -> Worker:
        with self._changed:
            self._restarts += 1
        worker = self._start()
        with self._changed:
            self._known.add(worker)
        if self._closed.is_set():  # `close` may not have seen it
            worker.kill()
        try:
            worker.load()
        except LikewiseError:
            worker.gone.wait(KILLED_S)
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

    def _lost(self, cause: str, backoff: Backoff, delay: float) -> None:
        if self._closed.is_set():
            return
        logger.warning("%s; another is started in %.1f s", cause, delay)
        if backoff.failures < self._load_attempts:
            return
        with self._changed:
            self._despair = f"no worker is left, and the last {backoff.failures} did not get to work: {cause}"
            self._changed.notify_all()


def _asked(ask: Callable[[bytes], bytes], batch: Sequence[E]) -> list[Any]:
    """One result an entry, of those that could be sent, and `Failed` for the others."""
    if not batch:
        return []
    try:
        message = pack(list(batch))
    except Exception:  # noqa: BLE001  of a value; which one, is looked for
        checked = sendable(batch, _unsendable)
        good = [entry for entry in checked if not isinstance(entry, Failed)]
        answered = iter(_answered(ask, pack(good), len(good)) if good else [])
        return [entry if isinstance(entry, Failed) else next(answered) for entry in checked]
    return _answered(ask, message, len(batch))


def _answered(ask: Callable[[bytes], bytes], message: bytes, count: int) -> list[Any]:
    try:
        reply = unpack(ask(message))
    except LikewiseError as error:
        reply = error
    except Exception as error:  # noqa: BLE001  a value's own unpickling may raise anything
        reply = ModelFailed(
            f"the worker's answer cannot be read: {type(error).__name__}: {str(error)[:300]}",
            remedy="serve the model without workers, or let it return plain values",
        )
    return [Failed(reply)] * count if isinstance(reply, LikewiseError) else reply


def _unsendable(why: str) -> RowRefused:
    return RowRefused(f"the row cannot be sent to a worker: {why}", remedy="send plain values: what JSON has, or bytes")
