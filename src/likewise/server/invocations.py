"""Routes that ask the model: a codec reads the request and writes the answer."""

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

OFF_LOOP_BYTES = 64 * 1024  # a body above this is decoded in a thread, so that others are served meanwhile
WATCH_AFTER_S = 0.01  # whoever is answered sooner cannot be saved by noticing that its caller has gone


@dataclass(eq=False)
class InvocationHandler:
    """An ASGI app that answers one route; raises LikewiseError and ClientDisconnect.

    check: raises for a request that is refused whatever its body.
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
    """`function(*arguments)`, in a thread where it is `large`, so that others are served meanwhile."""
    if large:
        return await asyncio.to_thread(function, *arguments, **named)
    return function(*arguments, **named)


async def _send(send: Send, answer: Encoded) -> None:
    length = str(len(answer.body)).encode()
    headers = [(b"content-type", answer.media_type), (b"content-length", length), *answer.headers]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _while_connected(receive: Receive, answer: Awaitable[T]) -> T:
    """`answer`, unless the client hangs up first: then its work is dropped, and ClientDisconnect raised.

    The body has been read: all that `receive` can bring is the disconnect.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101  a request is a task
    watching: asyncio.Future[Message] | None = None

    def hung_up(watched: asyncio.Future[Message]) -> None:
        if not watched.cancelled():  # as it is, with all else, when the server stops at once
            task.cancel()

    def watch() -> None:
        nonlocal watching
        watching = asyncio.ensure_future(receive())
        watching.add_done_callback(hung_up)

    timer = loop.call_later(WATCH_AFTER_S, watch)
    try:
        return await answer
    except asyncio.CancelledError:
        if watching is not None and watching.done() and not watching.cancelled() and task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        if watching is not None:
            watching.remove_done_callback(hung_up)
            watching.cancel()
