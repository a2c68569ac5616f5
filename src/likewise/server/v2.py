"""The routes of the Open Inference Protocol v2."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from likewise.core.errors import RouteNotFound
from likewise.server.codec import Encoded, Encoder
from likewise.server.invocations import InvocationHandler
from likewise.server.model import likewise_version
from likewise.server.server_options import ServerOptions
from likewise.server.service import ModelService
from likewise.wire import Cells, DecodedRequest
from likewise.wire.oip import HEADER_LENGTH, decode_infer, encode_infer, model_metadata


class V2:
    """The protocol's routes for one model, with and without its version in the path."""

    def __init__(
        self, service: ModelService, options: ServerOptions, handler: Callable[..., InvocationHandler]
    ) -> None:
        self._service = service
        self._cells = Cells(options.cells_limit)
        self._handler = handler

    def routes(self) -> list[Route]:
        """All routes: server metadata, health, model metadata and readiness, infer."""
        infer = self._handler(self.infer_codec, self.check_name)
        model = [
            Route(f"/v2/models/{{model}}{version}{tail}", endpoint, methods=methods)
            for version in ("", "/versions/{version}")
            for tail, endpoint, methods in (
                ("", self.model, ["GET"]),
                ("/ready", self.model_ready, ["GET"]),
                ("/infer", infer, ["POST"]),
            )
        ]
        return [
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            *model,
        ]

    async def server(self, _: Request) -> Response:
        """Server metadata: name, version and supported extensions."""
        return JSONResponse({"name": "likewise", "version": likewise_version(), "extensions": ["binary_tensor_data"]})

    async def live(self, _: Request) -> Response:
        """200 while the process is alive."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """200 if the model is warmed up and the server is not stopping; otherwise NotReady (503)."""
        self._service.check_ready()
        return JSONResponse({"ready": True})

    async def model(self, request: Request) -> Response:
        """Model metadata: its inputs and outputs."""
        self.check_name(request.scope)
        model = self._service.model
        metadata = model_metadata(
            model.signature, name=model.model_name, version=model.version or None, platform=self._service.engine_label
        )
        return JSONResponse(metadata)

    async def model_ready(self, request: Request) -> Response:
        """Readiness of the model, the same as the server's."""
        self.check_name(request.scope)
        self._service.check_ready()
        return JSONResponse({"name": self._service.model.model_name, "ready": True})

    def infer_codec(self, body: bytes, headers: Headers) -> tuple[DecodedRequest, Encoder]:
        """The codec of `infer` requests, JSON or with binary tensors."""
        model = self._service.model
        call = decode_infer(body, headers.get(HEADER_LENGTH), model.signature, self._cells)

        def encode(predictions: object) -> Encoded:
            response, json_length = encode_infer(
                call, predictions, model.signature, model_name=model.model_name, model_version=model.version or None
            )
            if json_length is None:
                return Encoded(response)
            length = (HEADER_LENGTH.lower().encode(), str(json_length).encode())
            return Encoded(response, b"application/octet-stream", (length,))

        return call, encode

    def check_name(self, scope: Scope) -> None:
        """Raise RouteNotFound if the path names another model or version."""
        model, params = self._service.model, scope["path_params"]
        if params["model"] != model.model_name:
            raise RouteNotFound(f"there is no model {params['model']!r}", remedy=f"use /v2/models/{model.model_name}")
        version = params.get("version")
        if version is not None and version != model.version:
            available = f"its version is {model.version!r}" if model.version else "it has no version"
            raise RouteNotFound(
                f"there is no version {version!r} of {model.model_name}: {available}",
                remedy=f"use /v2/models/{model.model_name}",
            )
