"""The memory of all requests in flight, within one limit: bodies, their values, and responses that are being sent."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from likewise.core.errors import Overloaded

ALWAYS_BYTES = 64 * 1024  # a request of this size is always admitted, so that large ones do not shut out all others


class InFlight:
    """Counts the bytes of all requests.  on_refused: called for each one that is rejected."""

    def __init__(self, limit: int, on_refused: Callable[[], None]) -> None:
        self.used = 0
        self.limit = limit
        self.on_refused = on_refused

    def share(self) -> Share:
        """The share of one request; use it as a context manager."""
        return Share(self)


class Share:
    """The bytes that one request holds, until the block ends."""

    __slots__ = ("_all", "size")

    def __init__(self, all_requests: InFlight) -> None:
        self._all = all_requests
        self.size = 0

    def check(self, size: int) -> None:
        """Raise Overloaded if the request may not grow to `size` bytes.  A request alone may grow without limit."""
        others = self._all.used - self.size
        if size > ALWAYS_BYTES and others and others + size > self._all.limit:
            self._all.on_refused()
            raise Overloaded(
                f"this request needs {size:,} bytes, and the others in flight have {others:,}; "
                f"the limit for all of them is {self._all.limit:,}",
                remedy="send it again after the time in Retry-After, with fewer rows per request, or to another server",
            )

    def grow(self, size: int) -> None:
        """Hold `size` bytes from now on, if they are more than before.  Raises Overloaded."""
        if size > self.size:
            self.check(size)
            self.add(size - self.size)

    def add(self, size: int) -> None:
        """Hold `size` more bytes, whatever the limit."""
        self._all.used += size
        self.size += size

    def __enter__(self) -> Share:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.add(-self.size)
