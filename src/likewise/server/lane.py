"""Threads that decode and encode what is large, so that the event loop can serve the other requests meanwhile."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import count
from queue import PriorityQueue
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

LARGE_BYTES = 256 * 1024
SWITCH_S = 0.0005  # instead of 0.005, after which a thread that computes lets another one run
CHILDREN = 2  # concurrent child processes that read Parquet


class Lanes:
    """One thread for large calls, one for the others, and some for those that wait for a child process.

    One thread per kind, because more of them would only take the interpreter from each other and from the event loop.
    """

    def __init__(self) -> None:
        self._small, self._large = Lane("likewise-decode"), Lane("likewise-decode-large")
        self._waiting = Lane("likewise-decode-wait", CHILDREN)

    async def run(self, size: int, waits: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(*args, **kwargs)` in a thread.  size: of the body; waits: whether it is a child that does the work.

        If the caller is cancelled, a call that has not started is dropped, and the result of one that has is discarded.
        """
        lane = self._waiting if waits else self._large if size > LARGE_BYTES else self._small
        return await asyncio.wrap_future(lane.submit(size, partial(function, *args, **kwargs)))

    def close(self) -> None:
        """Stop the threads after their current calls; does not wait for them."""
        for lane in (self._small, self._large, self._waiting):
            lane.close()


class Polite:
    """While one of its blocks runs, threads take turns faster: the event loop waits for its turn often per request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._usual = sys.getswitchinterval()

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_S)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                sys.setswitchinterval(self._usual)


_POLITE = Polite()


class Lane:
    """Daemon threads, started with the first call; smaller calls are served before larger ones."""

    def __init__(self, name: str, threads: int = 1) -> None:
        self._name = name
        self._threads = threads
        self._started = 0
        self._turns = count()
        self._calls: PriorityQueue[tuple[float, int, Future[Any] | None, Callable[[], Any] | None]] = PriorityQueue()

    def submit(self, size: int, call: Callable[[], T]) -> Future[T]:
        """Schedule a call."""
        future: Future[T] = Future()
        self._calls.put((size, next(self._turns), future, call))
        if self._started < self._threads:
            self._started += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return future

    def close(self) -> None:
        """Stop the threads after their current calls."""
        for _ in range(self._started):
            self._calls.put((-1, next(self._turns), None, None))

    def _work(self) -> None:
        while True:
            _, _, future, call = self._calls.get()
            if future is None or call is None:
                return
            if future.set_running_or_notify_cancel():
                _settle(future, call)
            del future, call  # else they, and all that they hold, would live until the next call


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    try:
        with _POLITE:
            result = call()
    except BaseException as error:  # noqa: BLE001  passed on to the caller through the future
        _free_frames(error)
        future.set_exception(error)
    else:
        future.set_result(result)


def _free_frames(error: BaseException | None) -> None:
    """Free what the functions that raised held, here instead of on the event loop: that may take a while."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
