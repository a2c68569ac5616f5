"""An event loop whose clock only moves when it is told to, or when nothing else is left to do."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """`jump`: the clock jumps to the next timer when nothing is ready; else only `advance` moves it."""

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
    """`scenario(loop)` to its end."""
    loop = VirtualLoop(jump=jump)
    try:
        loop.run_until_complete(scenario(loop))
    finally:
        loop.close()


class HandThread:
    """A thread that is turned by hand: what is posted waits in `jobs`, which all threads of a plane share."""

    def __init__(self, jobs: list[tuple["HandThread", Callable[[], None]]], name: str) -> None:
        self.jobs, self.name, self.ended = jobs, name, False

    def post(self, call: Callable[[], None]) -> None:
        assert all(thread is not self for thread, _ in self.jobs), "one call at a time"
        self.jobs.append((self, call))

    def shutdown(self) -> None:
        self.ended = True


class TimedThread:
    """A thread whose calls take virtual time: `seconds(call)` after they were posted they are made."""

    def __init__(self, seconds: Callable[[Any], float]) -> None:
        self._seconds = seconds

    def post(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(self._seconds(call), call)

    def shutdown(self) -> None:
        """Nothing to end."""
