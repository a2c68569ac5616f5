"""The server's app as SageMaker asks it.

Source: AWS, "Custom Inference Code with Hosting Services" (`/ping`, `/invocations`) and "… with Batch Transform"
(`/execution-parameters`).
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from likewise.bundles.open import Bundle
from likewise.container.forms import LineDecoder, wanted, written
from likewise.container.settings import ContainerOptions
from likewise.core.cores import usable_cores
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.server.codec import Codec, Encoded, Encoder
from likewise.serving import bundle_app
from likewise.wire import JSON, DecodedRequest

CUSTOM = "x-amzn-sagemaker-custom-attributes"
INFERENCE = "x-amzn-sagemaker-inference-id"
PAYLOAD_MB = 6
MOST_TRANSFORMS = 16  # times PAYLOAD_MB stays below the 100 MB that SageMaker allows in flight


def container_app(bundle: Bundle, options: ContainerOptions) -> Starlette:
    """`serving.bundle_app`, with `/ping` as `/ready`, `/execution-parameters`, and bodies and answers by line."""
    return bundle_app(
        bundle,
        ModelSpec(bundle.digest, bundle.path, engine=options.engine, precision=options.precision, trust=options.trust),
        options,
        codec=line_codec(bundle.signature),
        routes=[Route("/ping", ping), Route("/execution-parameters", execution_parameters)],
        middleware=[Middleware(InferenceId)],
    )


async def ping(request: Request) -> Response:
    """Warm, and not stopping."""
    request.app.state.service.check_ready()
    return Response("\n", media_type=JSON)


async def execution_parameters(_: Request) -> JSONResponse:
    """What a batch transform job does where it was not told: rows of many callers make full windows."""
    return JSONResponse(
        {
            "MaxConcurrentTransforms": min(MOST_TRANSFORMS, max(2, 2 * usable_cores())),
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": PAYLOAD_MB,
        }
    )


class InferenceId:
    """An inference id is the id of a request that has no other."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if INFERENCE in headers and "x-request-id" not in headers:
                also = (b"x-request-id", headers[INFERENCE].encode("latin-1"))
                scope = {**scope, "headers": [*scope["headers"], also]}
        await self._app(scope, receive, send)


def line_codec(signature: Signature) -> Codec:
    """Bodies by line and answers as `Accept` asks for them; custom attributes come back with the answer."""
    decode = LineDecoder(signature)

    def read(body: bytes, headers: Headers) -> tuple[DecodedRequest, Encoder]:
        content_type = headers.get("content-type")
        media = wanted(headers.get("accept"), content_type)
        call = decode(body, content_type)
        custom = ((CUSTOM.encode(), headers[CUSTOM].encode("latin-1")),) if CUSTOM in headers else ()
        return call, lambda predictions: Encoded(written(media, call.form, predictions), media.encode(), custom)

    return read
