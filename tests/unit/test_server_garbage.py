"""Requests create no cyclic garbage, because garbage collections block all other requests."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.types import Message
from tests.support.server_app import Upper, upper_app

from likewise.server import ServerOptions

REQUESTS = 50


@contextmanager
def no_collection() -> Iterator[None]:
    """Disable garbage collection, and exclude existing objects from a collection at the end."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def post(app: Starlette, path: str, body: bytes) -> int:
    """POST without a client library, which would create its own garbage; returns the status."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    statuses: list[int] = []

    async def receive() -> Message:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "client": None}
    await app(scope, receive, send)
    return statuses[0]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/invocations", b'{"inputs": ["%d"]}', 200),
        ("/invocations", b'{"inputs": ["%d"', 400),
        ("/invocations", b'{"inputs": ["bad%d"]}', 422),
        ("/nowhere", b"%d", 404),
    ],
)
def test_a_request_leaves_no_garbage(path: str, body: bytes, status: int) -> None:
    async def scenario() -> int:
        app = upper_app(options=ServerOptions(access_log=False))
        async with app.router.lifespan_context(app):
            while app.state.service.state.value == "loading":
                await asyncio.sleep(0.001)
            assert await post(app, "/invocations", b'{"inputs": ["good"]}') == 200  # else the model counts as broken
            for i in range(5):
                assert await post(app, path, body % i) == status
            with no_collection():
                for i in range(REQUESTS):
                    assert await post(app, path, body % (100 + i)) == status
                await asyncio.sleep(0)
                return gc.collect()

    assert asyncio.run(scenario()) < REQUESTS


@pytest.mark.parametrize(
    ("options", "status"), [({"queue_tokens": 1, "deadline_s": 600}, 503), ({"deadline_s": 600}, 504)]
)
def test_a_rejected_or_late_request_leaves_no_garbage(options: dict[str, float], status: int) -> None:
    engine = Upper()

    async def scenario() -> int:
        app = upper_app(lambda: engine, options=ServerOptions(access_log=False, **options))  # type: ignore[arg-type]
        async with app.router.lifespan_context(app):
            while app.state.service.state.value == "loading":
                await asyncio.sleep(0.001)
            engine.gate.clear()
            plane = app.state.service._plane
            pending = [asyncio.create_task(post(app, "/invocations", b'{"inputs": ["computed"]}'))]
            while plane._busy == 0:
                await asyncio.sleep(0)
            pending.append(asyncio.create_task(post(app, "/invocations", b'{"inputs": ["waits"]}')))
            while plane.waiting_items == 0:
                await asyncio.sleep(0)
            if status == 504:
                plane._deadline_s = 0.0
            with no_collection():
                for i in range(REQUESTS):
                    assert await post(app, "/invocations", b'{"inputs": ["%d"]}' % i) == status
                garbage = gc.collect()
            engine.gate.set()
            await asyncio.gather(*pending)
            return garbage

    assert asyncio.run(scenario()) < REQUESTS
