"""The spans of a request: the server's, those of its wait and of the engine, and links to its windows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope

from likewise.dataplane import DaemonThread, Timing, Window
from likewise.server.access import CLIENT_CLOSED_REQUEST
from likewise.server.server_timing import TIMING, cache_result
from likewise.telemetry.tracer import Attributes, Started, Tracer, now_minus_counter

CLOSE_S = 1.0
UNSENT = (0, CLIENT_CLOSED_REQUEST)  # statuses that no client has received


@dataclass(frozen=True, eq=False, slots=True)
class RequestTrace:
    """The trace of one request."""

    span: Started
    timing: Timing


@dataclass(eq=False)
class Traces:
    """Creates spans after the fact, when a request has been served.  None has any text of its body or query.

    A window has a separate trace, because it belongs to many requests, each of which links to it.
    bundle: the digest.  engine: returns the engine's label.
    """

    tracer: Tracer
    bundle: str
    engine: Callable[[], str]

    def begin(self, scope: Scope, route: str, headers: Headers) -> RequestTrace | None:
        """Start the trace of a request to `route`, if it runs the model and is sampled; it is measured then."""
        if scope["method"] != "POST" or not (route == "/invocations" or route.endswith("/infer")):
            return None
        caller = headers.get("traceparent")
        state = headers.get("tracestate") if caller else None
        span = self.tracer.start(f"POST {route}", caller, state)
        if span is None:
            return None
        timing = scope[TIMING] = Timing()
        return RequestTrace(span, timing)

    def end(
        self, trace: RequestTrace, scope: Scope, route: str, status: int, times: tuple[float, float], error: str
    ) -> None:
        """Export the spans of a request.  times: its start and end, by `time.perf_counter`; error: its code, if any."""
        timing, offset = trace.timing, now_minus_counter()
        windows = [self._window(window, offset) for window in timing.windows]
        if timing.runs:
            for name, (start, end) in (("queue", timing.queued), ("engine", timing.engine)):
                self._child(trace.span, name, (start + offset, end + offset))
        self.tracer.end(
            trace.span,
            f"POST {route}",
            (times[0] + offset, times[1] + offset),
            {**_http(scope, route, status, error), **_measured(timing)},
            links=windows,
            server=True,
            failed=status >= 500 or status == 0,
        )

    async def close(self) -> None:
        """Export the last spans, waiting at most CLOSE_S for the collector."""
        thread = DaemonThread("likewise-traces")
        await asyncio.wait((asyncio.wrap_future(thread.submit(self.tracer.close)),), timeout=CLOSE_S)
        thread.shutdown()

    def _child(self, parent: Started, name: str, seconds: tuple[float, float]) -> None:
        self.tracer.end(self.tracer.child(parent), name, seconds, {})

    def _window(self, window: Window, offset: float) -> Started:
        """The span of a window, which is exported with the first request that has been served."""
        if isinstance(window.span, Started):
            return window.span
        span = window.span = self.tracer.root()
        attributes: Attributes = {
            "likewise.items": window.items,
            "likewise.tokens": window.tokens,
            "likewise.padded_tokens": window.padded,
            "likewise.engine": self.engine(),
            "likewise.bundle": self.bundle,
            **({"error.type": window.error} if window.error else {}),
        }
        seconds = window.started + offset, window.ended + offset
        self.tracer.end(span, "window", seconds, attributes, failed=bool(window.error))
        return span


def _http(scope: Scope, route: str, status: int, error: str) -> Attributes:
    """Attributes of OpenTelemetry's conventions for HTTP servers, 1.23."""
    host, port = scope.get("server") or ("", None)
    path = scope["path"] if status != 404 and "{" not in route else route  # the client chooses parts of the others
    attributes: dict[str, str | int | float | bool] = {
        "http.request.method": "POST",
        "http.route": route,
        "url.path": path,
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
    }
    if status not in UNSENT:
        attributes["http.response.status_code"] = status
    if host:
        attributes["server.address"] = host
    if port:
        attributes["server.port"] = port
    if scope.get("client"):
        attributes["client.address"] = scope["client"][0]
    if error:
        attributes["error.type"] = error
    return attributes


def _measured(timing: Timing) -> Attributes:
    attributes: dict[str, str | int | float | bool] = {}
    if timing.runs:
        attributes = {"likewise.windows": timing.runs, "likewise.tokens": timing.tokens}
    if cached := cache_result(timing):
        attributes["likewise.cache"] = cached
    return attributes
