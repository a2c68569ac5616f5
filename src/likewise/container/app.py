"""The server's app as SageMaker asks it.

Source: AWS, "Custom Inference Code with Hosting Services" (`/ping`, `/invocations`) and "… with Batch Transform"
(`/execution-parameters`).
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from likewise.bundles.open import Bundle
from likewise.container.forms import LineDecoder, wanted, written
from likewise.container.options import ContainerOptions
from likewise.core.cores import usable_cores
from likewise.core.spec import ModelSpec
from likewise.server.body import read_body
from likewise.server.front import Front
from likewise.server.invocations import OFF_LOOP_BYTES, off_loop, send_json, while_connected
from likewise.server.service import Service
from likewise.serving import bundle_app
from likewise.wire import PARQUET

CUSTOM = "x-amzn-sagemaker-custom-attributes"
INFERENCE = "x-amzn-sagemaker-inference-id"
PAYLOAD_MB = 6
MOST_TRANSFORMS = 16  # times PAYLOAD_MB stays below the 100 MB that SageMaker allows in flight


def container_app(bundle: Bundle, options: ContainerOptions) -> Starlette:
    """`serving.bundle_app`, with `/ping` as `/ready`, `/execution-parameters`, and bodies and answers by line."""
    model = ModelSpec(
        bundle.digest, bundle.path, engine=options.engine, precision=options.precision, trust=options.trust
    )
    app = bundle_app(bundle, model, options)
    invocations = Invocations(app.state.service, options)
    inside: list[Any] = list(app.user_middleware)
    front = next(each for each in inside if each.cls is Front)
    front.kwargs["hot"]["/invocations"] = invocations
    app.router.routes.append(Route("/execution-parameters", execution_parameters))
    app.add_middleware(Door)
    return app


async def execution_parameters(_: Request) -> JSONResponse:
    """What a batch transform job does where it was not told: rows of many callers make full windows."""
    return JSONResponse(
        {
            "MaxConcurrentTransforms": min(MOST_TRANSFORMS, max(2, 2 * usable_cores())),
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": PAYLOAD_MB,
        }
    )


class Door:
    """Outermost: `/ping` asks what `/ready` does, and an inference id is the id of a request that has no other."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["path"] == "/ping":
                scope = {**scope, "path": "/ready", "raw_path": b"/ready"}
            headers = Headers(scope=scope)
            if INFERENCE in headers and "x-request-id" not in headers:
                also = (b"x-request-id", headers[INFERENCE].encode("latin-1"))
                scope = {**scope, "headers": [*scope["headers"], also]}
        await self._app(scope, receive, send)


class Invocations:
    """`POST /invocations` with lines and `Accept`; custom attributes come back with the answer.

    An ASGI app; raises LikewiseError and ClientDisconnect, as the server's own does.
    """

    def __init__(self, service: Service, options: ContainerOptions) -> None:
        self._service = service
        self._options = options
        self._decode = LineDecoder(service.model.signature)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, options = Headers(scope=scope), self._options
        body = await read_body(receive, headers, limit=options.body_limit_bytes, timeout_s=options.read_timeout_s)
        content_type = headers.get("content-type")
        media = wanted(headers.get("accept"), content_type)
        large = len(body) > OFF_LOOP_BYTES or PARQUET in (content_type or "").lower()
        call = await off_loop(large, self._decode, body, content_type)
        results = await while_connected(receive, self._service.predict(call))
        predictions = self._service.predictions(call, results)
        answer = await off_loop(large, written, media, call.form, predictions)
        kept = tuple((CUSTOM.encode(), headers[name].encode("latin-1")) for name in (CUSTOM,) if name in headers)
        await send_json(send, answer, kept, media_type=media.encode())
