"""The outermost layer: who asks, what answered, how long it took; and an answer where a handler breaks."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from likewise.core.errors import Draining, LikewiseError
from likewise.server.access import AccessLog, now, trace_of
from likewise.server.auth import OPEN_PATHS, Tokens
from likewise.server.error_responses import error_answer
from likewise.server.metrics import Metrics
from likewise.server.service import ModelService, ServiceState

logger = logging.getLogger("likewise.server")

HUNG_UP = 499  # in the log and the metrics: the caller left before the answer

_SANE_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_STATIC = frozenset(
    (
        *("/invocations", "/ping", "/health", "/ready", "/version", "/metrics", "/openapi.json", "/docs", "/"),
        *("/v2", "/v2/health/live", "/v2/health/ready"),
    )
)
_MODEL = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?(/ready|/infer)?")


@dataclass(eq=False)
class Front:
    """Wraps the app. `hot` are handlers by path that go past the app's own routing, because they are asked most."""

    app: ASGIApp
    service: ModelService
    metrics: Metrics
    hot: Mapping[str, ASGIApp]
    tokens: Tokens | None
    log: AccessLog | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        exchange = _Exchange(scope, send, self.service)
        try:
            if self.tokens is not None and path not in OPEN_PATHS:
                self.tokens.check(exchange.headers)
            handler = self.hot.get(path) if scope["method"] == "POST" else None
            await (handler or self.app)(scope, receive, exchange.send)
        except ClientDisconnect:
            exchange.status = HUNG_UP
        except BaseException as error:  # noqa: BLE001  raised again where there is no answer to it
            await self._rescue(error, path, exchange, scope, receive)
        finally:
            self._note(exchange, path, scope)

    async def _rescue(
        self, error: BaseException, path: str, exchange: _Exchange, scope: Scope, receive: Receive
    ) -> None:
        """An answer for what a handler raised; raised again where there can be none."""
        if exchange.status:
            raise error
        if isinstance(error, asyncio.CancelledError):  # the server stops, and waits no longer for this answer
            if self.service.state is not ServiceState.DRAINING:
                raise error
            error = Draining("the server stopped before the model had answered", remedy="send it to another server")
        if not isinstance(error, Exception):
            raise error
        if not isinstance(error, LikewiseError):
            logger.error("request %s broke the server", exchange.request_id, exc_info=error)
            error = LikewiseError(
                f"the server broke on this request: {type(error).__name__}",
                remedy=f"report it with the log's lines of request {exchange.request_id}",
            )
        await error_answer(error, path)(scope, receive, exchange.send)

    def _note(self, exchange: _Exchange, path: str, scope: Scope) -> None:
        route, seconds = _route(path), time.perf_counter() - exchange.began
        self.metrics.answered(route, exchange.status, seconds)
        if self.log is None:
            return
        self.log.add(
            {
                "time": now(),
                "request_id": exchange.request_id,
                "method": scope["method"],
                "route": route,
                "status": exchange.status,
                "seconds": round(seconds, 6),  # to the answer's last byte
                "bytes_out": exchange.bytes_out,
                "client": scope["client"][0] if scope.get("client") else None,
                "trace_id": trace_of(exchange.headers.get("traceparent")),
            }
        )


class _Exchange:
    """One request and what has been sent of its answer; `status` is 0 before."""

    __slots__ = ("_send", "_service", "began", "bytes_out", "headers", "request_id", "status")

    def __init__(self, scope: Scope, send: Send, service: ModelService) -> None:
        self.began = time.perf_counter()
        self.headers = Headers(scope=scope)
        self.request_id = _request_id(self.headers)
        self.status = 0
        self.bytes_out = 0
        self._send = send
        self._service = service

    async def send(self, message: Message) -> None:
        """To the client, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                *self._service.headers,
                (b"x-request-id", self.request_id.encode()),
            ]
        else:
            self.bytes_out += len(message.get("body", b""))
        await self._send(message)


def _request_id(headers: Headers) -> str:
    """The caller's, where it is sane; else the caller's trace id; else a new one."""
    sent = headers.get("x-request-id")
    if sent is not None and _SANE_ID.fullmatch(sent):
        return sent
    return trace_of(headers.get("traceparent")) or secrets.token_hex(16)


def _route(path: str) -> str:
    """The path as the metrics name it: a caller cannot make new names."""
    if path in _STATIC:
        return path
    if path.startswith("/docs/"):
        return "/docs/{file}"
    found = _MODEL.fullmatch(path)
    return f"/v2/models/{{model}}{'/versions/{version}' if found[1] else ''}{found[2] or ''}" if found else "other"
