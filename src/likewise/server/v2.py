"""The routes of the Open Inference Protocol v2."""

from __future__ import annotations

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
from likewise.wire import DecodedRequest
from likewise.wire.oip import HEADER_LENGTH, decode_infer, encode_infer, model_metadata


class V2:
    """One model, under its short name, with or without its version."""

    def __init__(self, service: ModelService, options: ServerOptions) -> None:
        self._service = service
        self._options = options

    def routes(self) -> list[Route]:
        """Server, health, model, infer."""
        infer = InvocationHandler(self._service, self._options, self.infer_codec, self.check_name)
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
        """Who answers, and which extensions it knows."""
        return JSONResponse({"name": "likewise", "version": likewise_version(), "extensions": ["binary_tensor_data"]})

    async def live(self, _: Request) -> Response:
        """Alive."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """Warm, and not stopping."""
        self._service.check_ready()
        return JSONResponse({"ready": True})

    async def model(self, request: Request) -> Response:
        """Its inputs and outputs."""
        self.check_name(request.scope)
        model = self._service.model
        said = model_metadata(
            model.signature, name=model.model_name, version=model.version or None, platform=self._service.engine_label
        )
        return JSONResponse(said)

    async def model_ready(self, request: Request) -> Response:
        """As the server's."""
        self.check_name(request.scope)
        self._service.check_ready()
        return JSONResponse({"name": self._service.model.model_name, "ready": True})

    def infer_codec(self, body: bytes, headers: Headers) -> tuple[DecodedRequest, Encoder]:
        """One inference, JSON or with binary tensors."""
        model = self._service.model
        call = decode_infer(body, headers.get(HEADER_LENGTH), model.signature)

        def encode(predictions: object) -> Encoded:
            answer, json_length = encode_infer(
                call, predictions, model.signature, model_name=model.model_name, model_version=model.version or None
            )
            if json_length is None:
                return Encoded(answer)
            length = (HEADER_LENGTH.lower().encode(), str(json_length).encode())
            return Encoded(answer, b"application/octet-stream", (length,))

        return call, encode

    def check_name(self, scope: Scope) -> None:
        """RouteNotFound for another model, or another version of it."""
        model, asked = self._service.model, scope["path_params"]
        if asked["model"] != model.model_name:
            raise RouteNotFound(
                f"there is no model {asked['model']!r} here", remedy=f"ask /v2/models/{model.model_name}"
            )
        version = asked.get("version")
        if version is not None and version != model.version:
            held = f"its version is {model.version!r}" if model.version else "it has no version"
            raise RouteNotFound(
                f"there is no version {version!r} of {model.model_name} here: {held}",
                remedy=f"ask /v2/models/{model.model_name}",
            )
