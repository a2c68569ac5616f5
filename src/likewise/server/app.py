"""Creates the ASGI app of a model: its routes, the middleware, and the start and stop of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from likewise.core.engine import Engine
from likewise.dataplane import PlaneOptions
from likewise.server.access import AccessLog
from likewise.server.auth import Tokens
from likewise.server.capture import capture_of
from likewise.server.codec import Codec, mlflow_codec
from likewise.server.description import describe
from likewise.server.error_responses import on_http_error
from likewise.server.hosts import Hosts
from likewise.server.in_flight import InFlight
from likewise.server.invocations import InvocationHandler
from likewise.server.lane import Lanes
from likewise.server.metrics import Metrics
from likewise.server.middleware import ServerMiddleware
from likewise.server.model import ServedModel, mlflow_version
from likewise.server.origins import cross_origin
from likewise.server.pages import ASSETS, CSP, DOCS, facts, landing_page
from likewise.server.server_options import ServerOptions
from likewise.server.service import ModelService
from likewise.server.v2 import V2
from likewise.telemetry import open_tracer
from likewise.wire import JSON

if TYPE_CHECKING:
    from likewise.server.traces import Traces


def create_app(
    open_engine: Callable[[], Engine],
    model: ServedModel,
    options: ServerOptions | None = None,
    *,
    codec: Codec | None = None,
    routes: Sequence[Route] = (),
    middleware: Sequence[Middleware] = (),
) -> Starlette:
    """The web service of one model.

    `open_engine` is called once, in a thread, when the app starts.  `/ping` and `/ready` return 200 after a warm-up
    inference on the model's example; `app.state.service` has the current state.  Raises WrongUsage for a token file
    without tokens, for an invalid origin, and for unsupported settings of OpenTelemetry in the environment;
    MissingExtra if they request traces without it; what `capture_of` raises.
    codec: replaces MLflow's codec for `/invocations`.  routes: matched before the service's own, so they can override
    them.  middleware: wraps the whole app.
    """
    options = options or ServerOptions()
    metrics = Metrics(model.digest)
    plane = PlaneOptions(
        deadline_s=options.deadline_s,
        run_timeout_s=options.run_timeout_s,
        queue_tokens=options.queue_tokens,
        cache_bytes=options.cache_bytes,
    )
    service = ModelService(open_engine, model, plane, metrics)
    log = AccessLog(on_lost=metrics.lines_lost)
    traces = _traces(service)
    in_flight, lanes = InFlight(options.in_flight_bytes, partial(metrics.shed, "in_flight")), Lanes()
    capture = capture_of(options, model, metrics)
    handler = partial(InvocationHandler, service, options, in_flight, lanes, captures=capture is not None)
    invocations = handler(codec or mlflow_codec(model.signature, options.cells_limit))
    all_routes = [
        *routes,
        Route("/invocations", invocations, methods=["POST"]),
        *V2(service, options, handler).routes(),
        *_Pages(service, metrics, options, in_flight).routes(),
    ]
    outer = Middleware(
        ServerMiddleware,
        service=service,
        metrics=metrics,
        hot={"/invocations": invocations},
        hosts=Hosts.of(options),
        tokens=Tokens(options.token_file) if options.token_file else None,
        log=log,
        log_all=options.access_log,
        across=cross_origin(options),
        traces=traces,
        capture=capture,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if capture is not None:
            capture.start()
        loading = asyncio.create_task(service.start())
        try:
            yield
        finally:
            loading.cancel()
            try:
                await service.stop()
            finally:
                lanes.close()
                closing = [each.close() for each in (capture, log, traces) if each is not None]
                await asyncio.gather(*closing, return_exceptions=True)  # there may be little time

    app = Starlette(
        routes=all_routes,
        middleware=[*middleware, outer],
        exception_handlers={HTTPException: on_http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service, app.state.metrics = service, metrics
    return app


def _traces(service: ModelService) -> Traces | None:
    """What exports traces, if the environment requests it; its module imports OpenTelemetry."""
    tracer = open_tracer(limited=True)
    if tracer is None:
        return None
    from likewise.server.traces import Traces

    return Traces(tracer, service.model.digest, lambda: service.engine_label)


_ASSETS = StaticFiles(directory=ASSETS, follow_symlink=True)  # installers may link a package's files


@dataclass(eq=False)
class _Pages:
    """Routes without a request body: health, metadata, metrics and pages."""

    service: ModelService
    service_metrics: Metrics
    options: ServerOptions
    in_flight: InFlight

    def routes(self) -> list[Route]:
        return [
            Route("/ping", self.ping),
            Route("/health", self.ping),
            Route("/ready", self.ready),
            Route("/version", self.version),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            Route("/docs", self.docs),
            *(Route(f"/{folder}/{{file}}", partial(self.asset, folder)) for folder in ("docs", "page")),
            Route("/bundle.json", self.bundle),
            Route("/", self.page),
        ]

    async def ping(self, _: Request) -> Response:
        """The same as `ready`, as clients of MLflow's server expect; with `ping_early` 200 while the process lives."""
        if not self.options.ping_early:
            self.service.check_ready()
        return Response("\n", media_type=JSON)

    async def ready(self, _: Request) -> Response:
        """200 if the model is warmed up and the server is not stopping; otherwise NotReady (503)."""
        self.service.check_ready()
        return Response("\n", media_type=JSON)

    async def version(self, _: Request) -> Response:
        """MLflow's version as plain text, as MLflow's own server returns it."""
        return Response(mlflow_version(), media_type=JSON)

    async def metrics(self, request: Request) -> Response:
        """Metrics in Prometheus' text format or OpenMetrics, as the Accept header requests."""
        gauges = {**self.service.gauges, "in_flight_bytes": self.in_flight.used}
        page, content_type = self.service_metrics.exposition(request.headers.get("accept", ""), **gauges)
        return Response(page, headers={"Content-Type": content_type})

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document."""
        document = describe(
            self.service.model,
            url=str(request.base_url),
            auth=self.options.token_file is not None,
            body_limit=self.options.body_limit_bytes,
        )
        return Response(orjson.dumps(document), media_type=JSON)

    async def docs(self, _: Request) -> Response:
        """Swagger UI for `/openapi.json`."""
        return HTMLResponse(DOCS, headers={"Content-Security-Policy": CSP})

    async def asset(self, folder: str, request: Request) -> Response:
        """A static file of `/docs` or of `/`; browsers cache it and revalidate it on each use."""
        response = await _ASSETS.get_response(f"{folder}/{request.path_params['file']}", request.scope)
        response.headers["Cache-Control"] = "no-cache"
        return response

    async def bundle(self, _: Request) -> Response:
        """The model, its signature and example, and facts of its bundle."""
        service = self.service
        document = facts(service.model, engine=service.engine_label, state=service.state.value, trouble=service.trouble)
        return Response(orjson.dumps(document, default=str), media_type=JSON)

    async def page(self, request: Request) -> Response:
        """The page that tries the model and shows its charts."""
        text = landing_page(self.service.model, url=str(request.base_url), auth=self.options.token_file is not None)
        return HTMLResponse(text, headers={"Content-Security-Policy": CSP})
