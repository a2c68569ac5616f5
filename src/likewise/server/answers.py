"""What every answer has: headers that say what answered, and errors in one form."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from likewise.core.errors import Draining, LikewiseError, MethodNotAllowed, RouteNotFound
from likewise.server.service import Service, State
from likewise.wire import JSON

logger = logging.getLogger("likewise.server")

_SANE_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_RETRY_AFTER_S = {503: "1"}


def error_answer(error: LikewiseError) -> Response:
    """`{"error_code", "message", "remedy"}` with MLflow's code, and the error's HTTP status."""
    body = {"error_code": error.mlflow_code, "message": error.cause, "remedy": error.remedy}
    headers = {"Retry-After": _RETRY_AFTER_S[error.status]} if error.status in _RETRY_AFTER_S else None
    return Response(orjson.dumps(body, default=str), error.status, headers, media_type=JSON)


async def on_likewise_error(_: Request, error: Exception) -> Response:
    """The handler of LikewiseError."""
    assert isinstance(error, LikewiseError)  # noqa: S101  registered for nothing else
    return error_answer(error)


async def on_http_error(request: Request, error: Exception) -> Response:
    """The handler of Starlette's own 404 and 405."""
    assert isinstance(error, HTTPException)  # noqa: S101  registered for nothing else
    path, method = request.url.path, request.method
    known: LikewiseError
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        known = MethodNotAllowed(f"{path} does not take {method}", remedy=f"use {allowed}")
    else:
        known = RouteNotFound(f"there is nothing at {path}", remedy="POST to /invocations; GET / describes the model")
    answer = error_answer(known)
    answer.headers.update(error.headers or {})
    return answer


class Identify:
    """The outermost layer: bundle, engine and request id on every answer, and JSON where a handler breaks."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if _SANE_ID.fullmatch(sent) else uuid.uuid4().hex
        started = False

        async def identified(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._sign(MutableHeaders(scope=message), request_id)
            await send(message)

        try:
            await self._app(scope, receive, identified)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:  # the server stops, and waits no longer for this answer
            if started or self._service.state is not State.DRAINING:
                raise
            late = Draining("the server stopped before the model had answered", remedy="send it to another server")
            await error_answer(late)(scope, receive, identified)
        except Exception as error:
            logger.exception("request %s broke the server", request_id)
            if not started:
                broken = LikewiseError(
                    f"the server broke on this request: {type(error).__name__}",
                    remedy=f"report it with the log's lines of request {request_id}",
                )
                await error_answer(broken)(scope, receive, identified)

    def _sign(self, headers: MutableHeaders, request_id: str) -> None:
        headers["X-Likewise-Bundle"] = self._service.model.digest
        headers["X-Likewise-Engine"] = self._service.engine_label
        headers["X-Request-Id"] = request_id
        if self._service.state is State.DRAINING:
            headers["Connection"] = "close"  # so that no kept connection is closed under a request just sent
