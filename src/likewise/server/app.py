"""The ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from likewise.core.engine import Engine
from likewise.core.errors import LikewiseError
from likewise.server.answers import Identify, on_http_error, on_likewise_error
from likewise.server.body import read_body
from likewise.server.model import ServedModel, mlflow_version
from likewise.server.options import ServerOptions
from likewise.server.page import landing_page
from likewise.server.service import Service
from likewise.wire import JSON, decode, encode

T = TypeVar("T")

OFF_LOOP_BYTES = 64 * 1024  # a body above this is decoded in a thread, so that others are served meanwhile


def create_app(
    open_engine: Callable[[], Engine], model: ServedModel, options: ServerOptions | None = None
) -> Starlette:
    """The web service of one model.

    `open_engine` is called once, in a thread, when the app starts: `/ping` answers at once, `/ready` after a warm-up
    inference on the model's example.  `app.state.service` tells where it stands.
    """
    service = Service(open_engine, model)
    routes = _Routes(service, options or ServerOptions())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.start())
        try:
            yield
        finally:
            loading.cancel()
            await service.stop()

    app = Starlette(
        routes=routes.table(),
        middleware=[Middleware(Identify, service=service)],
        exception_handlers={LikewiseError: on_likewise_error, HTTPException: on_http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


class _Routes:
    def __init__(self, service: Service, options: ServerOptions) -> None:
        self._service = service
        self._options = options

    def table(self) -> list[Route]:
        return [
            Route("/invocations", self.invocations, methods=["POST"]),
            Route("/ping", self.ping),
            Route("/health", self.ping),
            Route("/ready", self.ready),
            Route("/version", self.version),
            Route("/", self.page),
        ]

    async def invocations(self, request: Request) -> Response:
        """One request in any of the forms, answered in its own."""
        body = await read_body(request, self._options.body_limit_bytes)
        large = len(body) > OFF_LOOP_BYTES
        arguments = body, request.headers.get("content-type"), self._service.model.signature
        call = await asyncio.to_thread(decode, *arguments) if large else decode(*arguments)
        results = await _while_connected(request, self._service.predict(call))
        predictions = self._service.predictions(call, results)
        answer = await asyncio.to_thread(encode, call.form, predictions) if large else encode(call.form, predictions)
        return Response(answer, media_type=JSON)

    async def ping(self, _: Request) -> Response:
        """Alive."""
        return Response("\n", media_type=JSON)

    async def ready(self, _: Request) -> Response:
        """Warm, and not stopping."""
        self._service.check_ready()
        return Response("\n", media_type=JSON)

    async def version(self, _: Request) -> Response:
        """MLflow's version, bare, as MLflow's own server prints it."""
        return Response(mlflow_version(), media_type=JSON)

    async def page(self, request: Request) -> Response:
        """The model, and how to ask it."""
        service = self._service
        return HTMLResponse(
            landing_page(
                service.model, engine=service.engine_label, state=service.state.value, url=str(request.base_url)
            )
        )


async def _while_connected(request: Request, answer: Coroutine[Any, Any, T]) -> T:
    """`answer`, unless the client hangs up first: then its work is dropped, and ClientDisconnect raised."""
    working = asyncio.create_task(answer)
    watching = asyncio.ensure_future(request.receive())  # the body is read: all that can come is the disconnect
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
