"""The server's app, adapted to SageMaker's container contract.

Source: AWS, "Custom Inference Code with Hosting Services" (`/ping`, `/invocations`) and "… with Batch Transform"
(`/execution-parameters`).
"""

from __future__ import annotations

import sys

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from likewise.bundles.open import Bundle
from likewise.container.forms import LineDecoder, accepted_media, encode_as
from likewise.container.settings import ContainerOptions
from likewise.core.cores import usable_cores
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.server.codec import Codec, Encoded, Encoder
from likewise.serving import bundle_app
from likewise.wire import Cells, DecodedRequest

CUSTOM = "x-amzn-sagemaker-custom-attributes"
INFERENCE = "x-amzn-sagemaker-inference-id"
PAYLOAD_MB = 6
MAX_TRANSFORMS = 16  # times PAYLOAD_MB is below the 100 MB in flight that SageMaker allows


def container_app(bundle: Bundle, options: ContainerOptions) -> Starlette:
    """`serving.bundle_app` with SageMaker's `/execution-parameters`, and with line-based formats."""
    return bundle_app(
        bundle,
        ModelSpec(
            bundle.digest,
            bundle.path,
            engine=options.engine,
            precision=options.precision,
            trust=options.trust,
            build=bundle.build,
            allow_versions=True,  # decided when the image was built
        ),
        options,
        codec=line_codec(bundle.signature, options.cells_limit),
        routes=[Route("/execution-parameters", execution_parameters)],
        middleware=[Middleware(InferenceId)],
    )


async def execution_parameters(_: Request) -> JSONResponse:
    """Defaults for batch transform jobs; concurrent requests fill the engine's batches."""
    return JSONResponse(
        {
            "MaxConcurrentTransforms": min(MAX_TRANSFORMS, max(2, 2 * usable_cores())),
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": PAYLOAD_MB,
        }
    )


class InferenceId:
    """Middleware that uses SageMaker's inference id as request id, unless the request has an X-Request-Id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if INFERENCE in headers and "x-request-id" not in headers:
                request_id = (b"x-request-id", headers[INFERENCE].encode("latin-1"))
                scope = {**scope, "headers": [*scope["headers"], request_id]}
        await self._app(scope, receive, send)


def line_codec(signature: Signature, cells_limit: int = sys.maxsize) -> Codec:
    """Codec for line-based bodies and responses as requested by `Accept`; returns SageMaker's custom attributes."""
    decode = LineDecoder(signature, Cells(cells_limit))

    def read(body: bytes, headers: Headers) -> tuple[DecodedRequest, Encoder]:
        content_type = headers.get("content-type")
        media = accepted_media(headers.get("accept"), content_type)
        call = decode(body, content_type)
        custom = ((CUSTOM.encode(), headers[CUSTOM].encode("latin-1")),) if CUSTOM in headers else ()

        def write(predictions: object) -> Encoded:
            return Encoded(encode_as(media, call, predictions, signature), media.encode(), custom)

        return call, write

    return read
