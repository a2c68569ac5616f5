"""Keeps workers running: as many as the pool has slots, and one more for as long as the pool wants it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from likewise.core.backoff import Backoff
from likewise.core.errors import Draining, LikewiseError, WorkerDied
from likewise.workers.worker import KILLED_S, Worker, stop_all

logger = logging.getLogger("likewise.workers")

FIRST_S, LONGEST_S, STEADY_S = 0.1, 10.0, 30.0  # backoff between restarts of a worker
WORKED_S = 1.0  # the longest delay after a worker that has done some work: a row may have ended it
LINGER_S = 10.0  # how long the additional worker stays when it is no longer wanted
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """load_attempts: how often a replacement may fail to load before waiting calls fail.

    shrinks: whether a worker is given up that has failed as often without ever having loaded.
    """

    load_attempts: int
    shrinks: bool
    clock: Callable[[], float]


class Fleet:
    """The workers of a pool.  All methods are thread-safe; `changed` guards the attributes.

    count: number of workers without the additional one.  live: workers that have loaded the engine.  restarts: number
    of replacements started so far, including those that failed to load.  loss: how the last one ended.
    """

    def __init__(
        self,
        first: Worker,
        count: int,
        start: Callable[[], Worker],
        *,
        ready: Callable[[Worker], None],
        extra_wanted: Callable[[], bool],
        options: FleetOptions,
    ) -> None:
        """ready: called with each further worker after it has loaded, and may raise what loading raises."""
        self.changed = threading.Condition(threading.RLock())
        self.count = count
        self.live = [first]
        self.restarts = 0
        self.loss = ""
        self.closed = threading.Event()
        self._start = start
        self._ready = ready
        self._extra_wanted = extra_wanted
        self._options = options
        self._idle = deque([first])
        self._known = {first}
        self._outage: str | None = None
        self._extra: threading.Thread | None = None
        self._extra_failed = False
        self._threads: list[threading.Thread] = []
        self._begin(first)

    @property
    def kept(self) -> int:
        """Number of workers that calls of items that are run again must leave to others."""
        return self.count if not self._extra_failed else min(1, self.count - 1)

    def fill(self) -> None:
        """Start the workers that are missing, in the background; call it once."""
        for _ in range(self.count - 1):
            self._begin(None)

    def take(self, permitted: Callable[[], bool] = lambda: True) -> Worker:
        """Wait for an idle worker, and until `permitted()`.

        Raises Draining after `close`, or WorkerDied if no worker is left and restarts keep failing.
        """

        def decided() -> bool:
            return self.closed.is_set() or self._lost or (bool(self._idle) and permitted())

        with self.changed:
            self.changed.wait_for(decided)
            if self.closed.is_set():
                raise Draining("the workers have been stopped", remedy="send the request to another server, or retry")
            if self._lost:
                raise WorkerDied(
                    str(self._outage),
                    remedy="see the server's log for the reason, and check the machine's memory; use fewer workers if "
                    "it is short",
                )
            self._outage = None
            worker = self._idle.popleft()
        worker.worked = True
        return worker

    def give_back(self, worker: Worker) -> None:
        """Make the worker available to other calls, unless it has ended."""
        with self.changed:
            if worker in self.live:
                self._idle.append(worker)
                self.changed.notify_all()

    def remove(self, worker: Worker) -> None:
        """Do not use the worker any more, which has ended."""
        with self.changed:
            self._known.discard(worker)
            for workers in (self.live, self._idle):
                if worker in workers:
                    workers.remove(worker)
            self.changed.notify_all()

    def add_extra(self) -> None:
        """Start the additional worker, if it is not running."""
        with self.changed:
            if self._extra is None and not self.closed.is_set():
                self._extra = threading.Thread(target=self._keep_extra, name="likewise-extra", daemon=True)
                self._extra.start()

    def close(self) -> None:
        """Stop all processes, aborting calls in progress. May be called again."""
        with self.changed:
            self.closed.set()
            self.changed.notify_all()
            known, threads = list(self._known), [*self._threads, *([self._extra] if self._extra else [])]
        stop_all(known)
        for thread in threads:
            thread.join(KILLED_S)

    @property
    def _lost(self) -> bool:
        return self._outage is not None and not self.live

    def _begin(self, worker: Worker | None) -> None:
        thread = threading.Thread(target=self._keep, args=(worker,), name="likewise-keep", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _keep(self, worker: Worker | None) -> None:
        """The thread of one slot of the pool: starts its worker, if it has none, and replaces it whenever it ends."""
        backoff = _backoff()
        if worker is None:
            worker = self._loaded(backoff, 0.0, self._given_up)
        while worker is not None:
            delay = self._wait_for_end(worker, backoff)
            worker = self._loaded(backoff, delay)

    def _wait_for_end(self, worker: Worker, backoff: Backoff) -> float:
        """Wait until the worker ends; returns the delay before the next start."""
        loaded = self._options.clock()
        worker.exited.wait()
        delay = backoff.pause_s(self._options.clock() - loaded, worked=worker.worked)
        delay = min(delay, WORKED_S) if worker.worked else delay
        self.remove(worker)
        self._report_loss(worker.exit_description, backoff, delay)
        return delay

    def _loaded(
        self, backoff: Backoff, delay: float, given_up: Callable[[Backoff], bool] | None = None
    ) -> Worker | None:
        """Start a worker, retrying until one has loaded; None when the pool is closed, or if `given_up(backoff)`.

        It is a replacement, and counts as a restart, unless `given_up` is set.
        """
        while not self.closed.wait(delay):
            try:
                with self.changed:
                    self.restarts += given_up is None
                worker = self._start_and_load()
            except LikewiseError as error:
                delay = backoff.pause_s(0.0, worked=False)
                self._report_loss(error.cause, backoff, delay)
                if given_up is not None and given_up(backoff):
                    return None
                continue
            with self.changed:
                self.live.append(worker)
                self._idle.append(worker)
                self.changed.notify_all()
            return worker
        return None

    def _given_up(self, backoff: Backoff) -> bool:
        """Whether the pool works with one worker less, because another copy does not fit, for example."""
        with self.changed:
            if not (self._options.shrinks and backoff.failures >= self._options.load_attempts and self.live):
                return False
            self.count -= 1
        logger.warning("one worker less is used, because it could not be started")
        return True

    def _keep_extra(self) -> None:
        """The thread of the additional worker, which ends when it has not been wanted for `LINGER_S`."""
        backoff = _backoff()
        while True:
            with self.changed:
                if self.closed.is_set() or not self._extra_wanted():
                    self._extra = None
                    return
            worker = self._loaded(backoff, 0.0, lambda _: self._extra_lost())
            if worker is None:
                continue
            self._extra_failed = False
            wanted = time.monotonic()
            while not worker.exited.wait(POLL_S):
                wanted = time.monotonic() if self._extra_wanted() else wanted
                if time.monotonic() - wanted > LINGER_S and self._withdraw(worker):
                    stop_all([worker])
            self.remove(worker)

    def _extra_lost(self) -> bool:
        """There is no additional worker: what waits for it gets one of the others. Returns whether it is given up."""
        with self.changed:
            self._extra_failed = True
            self.changed.notify_all()
            return not self._extra_wanted()

    def _withdraw(self, worker: Worker) -> bool:
        """Take an idle worker out of the pool; False if it is busy."""
        with self.changed:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            self.live.remove(worker)
        return True

    def _start_and_load(self) -> Worker:
        worker = self._start()
        with self.changed:
            self._known.add(worker)
        if self.closed.is_set():  # `close` may have missed it
            worker.kill()
        try:
            worker.load()
            self._ready(worker)
        except LikewiseError:
            worker.kill()
            worker.exited.wait(KILLED_S)
            self.remove(worker)
            raise
        return worker

    def _report_loss(self, cause: str, backoff: Backoff, delay: float) -> None:
        if self.closed.is_set():
            return
        self.loss = cause
        logger.warning("%s; starting another in %.1f s", cause, delay)
        if backoff.failures < self._options.load_attempts:
            return
        with self.changed:
            self._outage = (
                f"no worker is running, and the last {backoff.failures} failed before doing any work: {cause}"
            )
            self.changed.notify_all()


def _backoff() -> Backoff:
    return Backoff(FIRST_S, LONGEST_S, STEADY_S, at_once=True)
