"""Routes that run the model: a codec decodes the request and encodes the response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from likewise.core.errors import DeadlineExceeded
from likewise.core.results import Result
from likewise.dataplane import Timing
from likewise.server.body import read_body
from likewise.server.capture import Sample
from likewise.server.codec import Codec, Encoded, Encoder, naming_ignored
from likewise.server.in_flight import InFlight, Share
from likewise.server.lane import LARGE_BYTES, Lanes
from likewise.server.server_options import ServerOptions
from likewise.server.server_timing import timing_of, with_timing
from likewise.server.service import ModelService
from likewise.wire import PARQUET, DecodedRequest
from likewise.wire.cells import estimated_cells

T = TypeVar("T")

ON_LOOP_BYTES = 16 * 1024  # larger bodies are decoded in a thread, so that other requests are not blocked
CELL_BYTES = 100  # memory of a decoded cell, with its part of a row; an object of JSON takes twice as much
SEND_BYTES = 256 * 1024  # a larger response is sent in parts, each after the client has read most of those before it
WATCH_AFTER_S = 0.01  # a faster request gains nothing from noticing that its client disconnected
SAMPLE = "likewise.sample"  # key in a request's scope
ABORT = "likewise.abort"  # ASGI extension of `protocol`, whose "call" closes the connection at once


@dataclass(eq=False)
class InvocationHandler:
    """The ASGI app of one route; raises LikewiseError and ClientDisconnect.

    check: called before the body is read; raises to reject the request.  captures: whether decoded requests are left in
    the scope under SAMPLE, for `capture`.
    """

    service: ModelService
    options: ServerOptions
    in_flight: InFlight
    lanes: Lanes
    codec: Codec
    check: Callable[[Scope], None] | None = None
    captures: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.check is not None:
            self.check(scope)
        headers, options = Headers(scope=scope), self.options
        timing = timing_of(scope)
        with self.in_flight.share() as share:
            body = await read_body(
                receive, headers, limit=options.body_limit_bytes, timeout_s=options.read_timeout_s, share=share
            )
            deadline = asyncio.get_running_loop().time() + options.deadline_s
            parquet = PARQUET in headers.get("content-type", "").lower()
            if len(body) > ON_LOOP_BYTES or parquet:
                arriving = self._large(scope, body, headers, share, timing, waits=parquet)
                response = await self._until(deadline, receive, arriving)
            else:
                call, encode = self.codec(body, headers)
                results = await _while_connected(receive, self._predict(scope, call, len(body), timing))
                response = self._response(call, encode, results)
            if timing is not None:
                response = with_timing(response, timing, scope)
            if self.captures and (sample := scope.get(SAMPLE)) is not None:
                sample.size += 2 * len(response.body)  # memory of its predictions
            await self._send(scope, send, response, share, deadline)

    async def _until(self, deadline: float, receive: Receive, response: Awaitable[T]) -> T:
        """Await a response until the deadline, or until the client disconnects."""
        try:
            async with asyncio.timeout_at(deadline):
                return await _while_connected(receive, response)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"no response within {self.options.deadline_s:g} s",
                remedy="send fewer rows per request, or raise the deadline",
            ) from error

    async def _predict(
        self, scope: Scope, call: DecodedRequest, size: int, timing: Timing | None, *, large: bool = False
    ) -> list[Result]:
        """The results of a request, whose body had `size` bytes."""
        if not self.captures:
            return await self.service.predict(call, large=large, timing=timing)
        sample = scope[SAMPLE] = Sample(call, size, self.service.by_row(call))
        sample.results = await self.service.predict(call, large=large, timing=timing)
        return sample.results

    async def _large(
        self, scope: Scope, body: bytes, headers: Headers, share: Share, timing: Timing | None, *, waits: bool
    ) -> Encoded:
        """The response to a body whose decoding would block the event loop."""
        size = len(body)
        if size > LARGE_BYTES:  # rejected before it is decoded, if there is no memory for its cells
            cells = await self.lanes.run(size, False, estimated_cells, body)
            share.grow(size + CELL_BYTES * min(cells, self.options.cells_limit))
        call, encode = await self.lanes.run(size, waits, self.codec, body, headers)
        share.grow(size + CELL_BYTES * len(call.table) * len(call.table.columns or ("",)))
        results = await self._predict(scope, call, size, timing, large=True)
        return await self.lanes.run(size, False, self._response, call, encode, results)

    def _response(self, call: DecodedRequest, encode: Encoder, results: list[Result]) -> Encoded:
        return naming_ignored(call, encode(self.service.predictions(call, results)))

    async def _send(self, scope: Scope, send: Send, response: Encoded, share: Share, deadline: float) -> None:
        body, size = response.body, len(response.body)
        length = str(size).encode()
        headers = [(b"content-type", response.media_type), (b"content-length", length), *response.headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if size <= SEND_BYTES:
            await send({"type": "http.response.body", "body": body})
            return
        share.add(size)
        try:
            async with asyncio.timeout_at(deadline):
                for start in range(0, size, SEND_BYTES):
                    end = start + SEND_BYTES
                    await send({"type": "http.response.body", "body": body[start:end], "more_body": end < size})
        except TimeoutError:  # the client reads too slowly, and the response cannot be replaced by an error any more
            if abort := scope.get("extensions", {}).get(ABORT):
                abort["call"]()
            raise ClientDisconnect from None


async def _while_connected(receive: Receive, result: Awaitable[T]) -> T:
    """Await `result`; if the client disconnects first, cancel it and raise ClientDisconnect.

    The body has been read already, so `receive` can only return the disconnect.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101  every request runs in a task
    watching: asyncio.Future[Message] | None = None

    def hung_up(watched: asyncio.Future[Message]) -> None:
        if not watched.cancelled():  # cancelled, like everything else, when the server exits immediately
            task.cancel()

    def watch() -> None:
        nonlocal watching
        watching = asyncio.ensure_future(receive())
        watching.add_done_callback(hung_up)

    timer = loop.call_later(WATCH_AFTER_S, watch)
    try:
        return await result
    except asyncio.CancelledError:
        if watching is not None and watching.done() and not watching.cancelled() and task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        if watching is not None:
            watching.remove_done_callback(hung_up)
            watching.cancel()
