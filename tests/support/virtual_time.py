"""An event loop with a virtual clock, which advances explicitly or when the loop is idle."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """jump: whether the clock jumps to the next timer when nothing is ready; otherwise only `advance` moves it."""

    def __init__(self, *, jump: bool) -> None:
        self.now = 1000.0
        super().__init__(_Selector(self, jump))

    def time(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop, jump: bool) -> None:
        super().__init__()
        self._loop, self._jump = loop, jump

    def select(self, timeout: float | None = None) -> Any:
        if self._jump and timeout:
            self._loop.advance(timeout)
        return super().select(0)


def run(scenario: Callable[[VirtualLoop], Coroutine[Any, Any, None]], *, jump: bool) -> None:
    """Run `scenario(loop)` to completion."""
    loop = VirtualLoop(jump=jump)
    try:
        loop.run_until_complete(scenario(loop))
    finally:
        loop.close()


class HandThread:
    """A manually driven thread: posted calls are queued in `jobs`, which all threads of a data plane share."""

    def __init__(self, jobs: list[tuple["HandThread", Callable[[], None]]], name: str) -> None:
        self.jobs, self.name, self.ended = jobs, name, False

    def post(self, call: Callable[[], None]) -> None:
        assert all(thread is not self for thread, _ in self.jobs), "one call at a time"
        self.jobs.append((self, call))

    def shutdown(self) -> None:
        self.ended = True


class TimedThread:
    """A thread that takes virtual time: each call runs `seconds(call)` after it was posted."""

    def __init__(self, seconds: Callable[[Any], float]) -> None:
        self._seconds = seconds

    def post(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(self._seconds(call), call)

    def shutdown(self) -> None:
        """Does nothing: there is no real thread."""
