"""Threads for the model's code, which cannot be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Thread(Protocol):
    """The interface of the data plane's threads; tests may pass one that they step manually."""

    def post(self, call: Callable[[], None]) -> None: ...

    def shutdown(self) -> None: ...


class DaemonThread(Executor):
    """An executor with one daemon thread; unlike with ThreadPoolExecutor, exiting the process does not wait for it."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Schedule `fn(*args, **kwargs)` after the calls submitted before."""
        future: Future[T] = Future()
        self._calls.put(partial(_settle, future, partial(fn, *args, **kwargs)))
        return future

    def post(self, call: Callable[[], None]) -> None:
        """The same without a future, for a `call` that reports its own result and never raises."""
        self._calls.put(call)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Stop the thread after the submitted calls; does not wait for it."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001  passed on to the caller through the future
        future.set_exception(error)
    else:
        future.set_result(result)
