"""The outermost layer: request ids, metrics, access log, access checks, and error responses for exceptions."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from likewise.core.errors import Draining, LikewiseError, Unauthorized
from likewise.server.access import CLIENT_CLOSED_REQUEST, AccessLog, now, trace_of
from likewise.server.auth import Tokens, is_open
from likewise.server.capture import Answer, Capture
from likewise.server.compression import Compression, compression_of
from likewise.server.error_responses import error_response
from likewise.server.hosts import Hosts
from likewise.server.invocations import SAMPLE
from likewise.server.metrics import Metrics
from likewise.server.service import ModelService, ServiceState

if TYPE_CHECKING:
    from likewise.server.traces import RequestTrace, Traces

logger = logging.getLogger("likewise.server")

_UNLOGGED = 503  # without `log_all`: an overloaded server sends too many of them, and the metrics count them

_EXCHANGE = "likewise.exchange"  # key in a request's scope
_VALID_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_STATIC = frozenset(
    (
        *("/invocations", "/ping", "/health", "/ready", "/version", "/metrics"),
        *("/openapi.json", "/bundle.json", "/docs", "/"),
        *("/v2", "/v2/health/live", "/v2/health/ready"),
    )
)
_MODEL = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?(/ready|/infer)?")


@dataclass(eq=False)
class ServerMiddleware:
    """Wraps the app.

    hot: by path, handlers of POST that bypass the app's routing because they get most requests.  hosts: None to answer
    for any host name.  log_all: whether to log every request, or only server errors.  across: wraps what handles
    requests, inside of ids, metrics and log; see `origins`.
    traces: None unless the environment requests them.
    """

    app: ASGIApp
    service: ModelService
    metrics: Metrics
    hot: Mapping[str, ASGIApp]
    hosts: Hosts | None
    tokens: Tokens | None
    log: AccessLog
    log_all: bool
    across: Callable[[ASGIApp], ASGIApp] | None
    traces: Traces | None = None
    capture: Capture | None = None

    def __post_init__(self) -> None:
        self._handle: ASGIApp = self._respond if self.across is None else self.across(self._respond)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if path.startswith("/v2/") and path.endswith("/"):  # clients of the Open Inference Protocol also send `/v2/`
            path, scope = path[:-1], {**scope, "path": scope["path"][:-1]}
        exchange = _Exchange(scope, path, send, self.service, self.tokens is None)
        scope[_EXCHANGE] = exchange
        if self.traces is not None and self.traces.tracer.may_start():
            exchange.trace = self.traces.begin(scope, _route(path), exchange.headers)
        try:
            await self._handle(scope, receive, exchange.send)
        finally:
            self._record(exchange, scope)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request, and let the handler of the path respond, or the exception that it raises."""
        exchange: _Exchange = scope[_EXCHANGE]
        try:
            if self.hosts is not None:
                self.hosts.check(scope)
            if self.tokens is not None:
                exchange.admitted = _has_token(self.tokens, exchange)
            handler = self.hot.get(exchange.path) if scope["method"] == "POST" else None
            await (handler or self.app)(scope, receive, send)
        except ClientDisconnect:
            exchange.status = CLIENT_CLOSED_REQUEST
        except BaseException as error:  # noqa: BLE001  re-raised if no response can be sent
            await self._respond_to_error(error, exchange, scope, receive, send)

    async def _respond_to_error(
        self, error: BaseException, exchange: _Exchange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send a response for the exception of a handler; re-raise it if none can be sent."""
        if exchange.status:
            raise error
        if isinstance(error, asyncio.CancelledError):  # the server is stopping and no longer waits for this response
            if self.service.state is not ServiceState.DRAINING:
                raise error
            error = Draining("the server stopped before the prediction was ready", remedy="send it to another server")
        if not isinstance(error, Exception):
            raise error
        if not isinstance(error, LikewiseError):
            ids = {"request_id": exchange.request_id, **exchange.trace_ids()}
            logger.error("request %s: unexpected exception", exchange.request_id, exc_info=error, extra=ids)
            error = LikewiseError(
                f"internal server error on this request: {type(error).__name__}",
                remedy=f"report it with the log lines of request {exchange.request_id}",
            )
        exchange.error_code = error.code
        sent = exchange.headers.get("authorization", "")
        await error_response(error, exchange.path, sent)(scope, receive, send)

    def _record(self, exchange: _Exchange, scope: Scope) -> None:
        route, ended = _route(exchange.path), time.perf_counter()
        seconds = ended - exchange.started
        self.metrics.completed(route, exchange.status, seconds)
        if self.traces is not None and exchange.trace is not None:
            code = exchange.error_code or ("client_disconnected" if exchange.status == CLIENT_CLOSED_REQUEST else "")
            self.traces.end(exchange.trace, scope, route, exchange.status, (exchange.started, ended), code)
        if self.capture is not None and SAMPLE in scope and self.capture.wants(exchange.request_id):
            self.capture.add(
                scope[SAMPLE],
                Answer(
                    request_id=exchange.request_id,
                    route=route,
                    status=exchange.status,
                    seconds=seconds,
                    error_code=exchange.error_code,
                    engine=self.service.engine_label,
                    time=now(),
                ),
            )
        failed = exchange.status >= 500 and exchange.status != _UNLOGGED
        if not (self.log_all or failed):
            return
        self.log.add(
            {
                "time": now(),
                "request_id": exchange.request_id,
                "method": scope["method"],
                "route": route,
                "status": exchange.status,
                "seconds": round(seconds, 6),  # until the last byte of the response
                "bytes_out": exchange.bytes_out,
                "client": scope["client"][0] if scope.get("client") else None,
                **exchange.trace_ids(),
                **({"error_code": exchange.error_code} if exchange.error_code else {}),
            }
        )


def _has_token(tokens: Tokens, exchange: _Exchange) -> bool:
    """Whether a request has a valid token; Unauthorized if its path requires one."""
    try:
        tokens.check(exchange.headers)
    except Unauthorized:
        if is_open(exchange.path):
            return False
        raise
    return True


class _Exchange:
    """One request and the state of its response; `status` is 0 until the response starts.

    admitted: whether the client may know which model responds: it has sent a token, or none is needed.
    """

    __slots__ = (
        *("_compression", "_method", "_send", "_service"),
        *("admitted", "bytes_out", "error_code", "headers", "path", "request_id", "started", "status", "trace"),
    )

    def __init__(self, scope: Scope, path: str, send: Send, service: ModelService, admitted: bool) -> None:
        self.admitted = admitted
        self.started = time.perf_counter()
        self.path = path
        self.headers = Headers(scope=scope)
        self.request_id = _request_id(self.headers)
        self.status = 0
        self.bytes_out = 0
        self.error_code = ""
        self.trace: RequestTrace | None = None
        self._method: str = scope["method"]
        self._send = send
        self._service = service
        self._compression: Compression | None = None

    def trace_ids(self) -> dict[str, str | None]:
        """The ids of the request's trace and span for the log; only the caller's trace if this server exports none."""
        if self.trace is not None:
            return {"trace_id": self.trace.span.trace_id, "span_id": self.trace.span.span_id}
        return {"trace_id": trace_of(self.headers.get("traceparent"))}

    async def send(self, message: Message) -> None:
        """Send to the client, adding the headers common to all responses, and compressed if it prefers that."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                *(self._service.identity if self.admitted else ()),
                *self._service.closing,
                (b"x-request-id", self.request_id.encode()),
            ]
            self._compression = compression_of(message, self._method, self.headers)
            if self._compression is not None:
                return  # the headers depend on the first part of the body
        elif self._compression is not None:
            message, start = await self._compression.compress(message)
            if start is not None:
                await self._send(start)
        self.bytes_out += len(message.get("body", b""))
        await self._send(message)


def _request_id(headers: Headers) -> str:
    """The client's X-Request-Id if it is valid, else its trace id, else a new id."""
    sent = headers.get("x-request-id")
    if sent is not None and _VALID_ID.fullmatch(sent):
        return sent
    return trace_of(headers.get("traceparent")) or secrets.token_hex(16)


def _route(path: str) -> str:
    """The route label for metrics: a fixed set, so that clients cannot create new labels."""
    if path in _STATIC:
        return path
    for folder in ("/docs/", "/page/"):
        if path.startswith(folder):
            return folder + "{file}"
    match = _MODEL.fullmatch(path)
    return f"/v2/models/{{model}}{'/versions/{version}' if match[1] else ''}{match[2] or ''}" if match else "other"
