"""Calls of a model: several at once, or one alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Lets up to `count` threads in at once with `shared`; a thread in `alone` is the only one."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._places = threading.Semaphore(count)
        self._alone = threading.Lock()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Wait for a place; for as long as a thread waits to be alone, it comes first."""
        with self._alone:
            self._places.acquire()
        try:
            yield
        finally:
            self._places.release()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other thread is inside."""
        with self._alone:
            for _ in range(self._count):
                self._places.acquire()
            try:
                yield
            finally:
                self._places.release(self._count)
