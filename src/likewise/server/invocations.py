"""Routes that run the model: a codec decodes the request and encodes the response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from likewise.server.body import read_body
from likewise.server.codec import Codec, Encoded
from likewise.server.server_options import ServerOptions
from likewise.server.service import ModelService
from likewise.wire import PARQUET

T = TypeVar("T")
P = ParamSpec("P")

OFF_LOOP_BYTES = 64 * 1024  # larger bodies are decoded in a thread, so that other requests are not blocked
WATCH_AFTER_S = 0.01  # a faster request gains nothing from noticing that its client disconnected


@dataclass(eq=False)
class InvocationHandler:
    """The ASGI app of one route; raises LikewiseError and ClientDisconnect.

    check: called before the body is read; raises to reject the request.
    """

    service: ModelService
    options: ServerOptions
    codec: Codec
    check: Callable[[Scope], None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.check is not None:
            self.check(scope)
        headers, options = Headers(scope=scope), self.options
        body = await read_body(receive, headers, limit=options.body_limit_bytes, timeout_s=options.read_timeout_s)
        large = len(body) > OFF_LOOP_BYTES or PARQUET in headers.get("content-type", "").lower()
        call, encode = await _off_loop(large, self.codec, body, headers)
        results = await _while_connected(receive, self.service.predict(call))
        predictions = self.service.predictions(call, results)
        await _send(send, await _off_loop(large, encode, predictions))


async def _off_loop(large: bool, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """`function(*arguments)`, in a thread if it is `large`, so that other requests are not blocked."""
    if large:
        return await asyncio.to_thread(function, *arguments, **named)
    return function(*arguments, **named)


async def _send(send: Send, response: Encoded) -> None:
    length = str(len(response.body)).encode()
    headers = [(b"content-type", response.media_type), (b"content-length", length), *response.headers]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


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
