"""Customization of the app for another contract: a codec, routes, middleware."""

import asyncio
import json

import pytest
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.support.server_app import TEXT, Upper, client_of

from likewise.container.app import line_codec
from likewise.core.errors import UnsupportedContentType
from likewise.core.items import Table
from likewise.server import ServedModel
from likewise.server.app import create_app
from likewise.server.codec import Codec, Encoded, Encoder
from likewise.wire import DecodedRequest


def one_text(body: bytes, headers: Headers) -> tuple[DecodedRequest, Encoder]:
    """A codec whose request and response bodies are plain text."""
    if headers.get("accept") == "image/png":
        raise UnsupportedContentType("no pictures here", remedy="accept text/plain")
    call = DecodedRequest(Table(("text",), [(body.decode(),)]))
    return call, lambda predictions: Encoded(predictions[0]["text"].encode(), b"text/plain", ((b"x-form", b"text"),))  # type: ignore[index]


async def pong(request: Request) -> PlainTextResponse:
    request.app.state.service.check_ready()
    return PlainTextResponse("pong")


class Tagged:
    """Middleware that sets the id of every request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], (b"x-request-id", b"tagged")]}
        await self._app(scope, receive, send)


@pytest.mark.parametrize("codec", [None, line_codec(TEXT)], ids=["server", "container"])
def test_params_that_the_model_does_not_take_are_named_in_a_header(codec: Codec | None) -> None:
    app = create_app(Upper, ServedModel(name="<upper>", digest="sha256:abc", signature=TEXT), codec=codec)

    async def main() -> None:
        async with client_of(app) as client:
            send = lambda params: client.post("/invocations", json={"inputs": ["a"], "params": params})  # noqa: E731
            assert "X-Likewise-Ignored-Params" not in (await send({})).headers
            response = await send({"k": 1, "Schwelle ü\r\nX: 1" + "x" * 100: 2, **{f"n{i}": i for i in range(20)}})
            named = json.loads(response.headers["X-Likewise-Ignored-Params"])
            assert (response.status_code, len(named), named[0], len(named[1])) == (200, 10, "k", 60)
            assert "X" not in response.headers

    asyncio.run(main())


def test_a_codec_routes_and_middleware_replace_the_services_own() -> None:
    model = ServedModel(name="<upper>", digest="sha256:abc", signature=TEXT)
    routes = [Route("/ping", pong), Route("/extra", pong)]
    app = create_app(Upper, model, codec=one_text, routes=routes, middleware=[Middleware(Tagged)])

    async def main() -> None:
        async with client_of(app) as client:
            response = await client.post("/invocations", content=b"a")
            assert (response.text, response.headers["Content-Type"], response.headers["X-Form"]) == (
                "A",
                "text/plain",
                "text",
            )
            assert response.headers["X-Request-Id"] == "tagged"
            assert response.headers["X-Likewise-Bundle"] == "sha256:abc"
            large = await client.post("/invocations", content=b"a" * 100_000)
            assert large.text == "A" * 100_000
            refused = await client.post("/invocations", content=b"a", headers={"Accept": "image/png"})
            assert (refused.status_code, refused.json()["remedy"]) == (415, "accept text/plain")
            assert [(await client.get(path)).text for path in ("/ping", "/extra", "/health")] == ["pong", "pong", "\n"]
            infer = f"/v2/models/{model.model_name}/infer"
            tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
            assert (await client.post(infer, json={"inputs": [tensor]})).json()["outputs"][0]["data"] == ["A"]

    asyncio.run(main())
