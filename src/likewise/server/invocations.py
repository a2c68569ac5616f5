"""`POST /invocations`: one request in any of the forms, answered in its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from likewise.server.body import read_body
from likewise.server.options import ServerOptions
from likewise.server.service import Service
from likewise.wire import JSON, PARQUET, encode

T = TypeVar("T")
P = ParamSpec("P")

OFF_LOOP_BYTES = 64 * 1024  # a body above this is decoded in a thread, so that others are served meanwhile
WATCH_AFTER_S = 0.01  # whoever is answered sooner cannot be saved by noticing that its caller has gone

_JSON = JSON.encode()


class Invocations:
    """An ASGI app that answers this one route; raises LikewiseError and ClientDisconnect."""

    def __init__(self, service: Service, options: ServerOptions) -> None:
        self._service = service
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        options = self._options
        limit, timeout_s = options.body_limit_bytes, options.read_timeout_s
        body = await read_body(receive, headers, limit=limit, timeout_s=timeout_s)
        decode, content_type = self._service.decode, headers.get("content-type")
        large = len(body) > OFF_LOOP_BYTES or PARQUET in (content_type or "").lower()
        call = await off_loop(large, decode, body, content_type)
        results = await while_connected(receive, self._service.predict(call))
        predictions = self._service.predictions(call, results)
        answer = await off_loop(large, encode, call.form, predictions)
        await send_json(send, answer)


async def off_loop(large: bool, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """`function(*arguments)`, in a thread where it is `large`, so that others are served meanwhile."""
    if large:
        return await asyncio.to_thread(function, *arguments, **named)
    return function(*arguments, **named)


async def send_json(
    send: Send, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = (), *, media_type: bytes = _JSON
) -> None:
    """200, with `body`."""
    length = str(len(body)).encode()
    all_headers = [(b"content-type", media_type), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


async def while_connected(receive: Receive, answer: Awaitable[T]) -> T:
    """`answer`, unless the client hangs up first: then its work is dropped, and ClientDisconnect raised.

    The body has been read: all that `receive` can bring is the disconnect.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101  a request is a task
    watching: asyncio.Task[Message] | None = None

    def hung_up(watched: asyncio.Task[Message]) -> None:
        if not watched.cancelled():  # as it is, with all else, when the server stops at once
            task.cancel()

    def watch() -> None:
        nonlocal watching
        watching = loop.create_task(_next(receive))
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


async def _next(receive: Receive) -> Message:
    return await receive()
