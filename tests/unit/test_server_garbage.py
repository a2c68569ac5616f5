"""A request leaves nothing behind that only a garbage collection finds: those stop every other request."""

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
    """Meanwhile nothing is collected; what there was before is left out of a collection at the end."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def ask(app: Starlette, path: str, body: bytes) -> int:
    """The status, without a client that would leave garbage of its own."""
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
            for i in range(5):
                assert await ask(app, path, body % i) == status
            with no_collection():
                for i in range(REQUESTS):
                    assert await ask(app, path, body % (100 + i)) == status
                await asyncio.sleep(0)
                return gc.collect()

    assert asyncio.run(scenario()) < REQUESTS


@pytest.mark.parametrize(
    ("options", "status"), [({"queue_tokens": 1, "deadline_s": 600}, 503), ({"deadline_s": 600}, 504)]
)
def test_nor_does_one_that_is_refused_or_late(options: dict[str, float], status: int) -> None:
    engine = Upper()

    async def scenario() -> int:
        app = upper_app(lambda: engine, options=ServerOptions(access_log=False, **options))  # type: ignore[arg-type]
        async with app.router.lifespan_context(app):
            while app.state.service.state.value == "loading":
                await asyncio.sleep(0.001)
            engine.gate.clear()
            plane = app.state.service._plane
            held = [asyncio.create_task(ask(app, "/invocations", b'{"inputs": ["computed"]}'))]
            while plane._busy == 0:
                await asyncio.sleep(0)
            held.append(asyncio.create_task(ask(app, "/invocations", b'{"inputs": ["waits"]}')))
            while plane.waiting_items == 0:
                await asyncio.sleep(0)
            if status == 504:
                plane._deadline_s = 0.0
            with no_collection():
                for i in range(REQUESTS):
                    assert await ask(app, "/invocations", b'{"inputs": ["%d"]}' % i) == status
                found = gc.collect()
            engine.gate.set()
            await asyncio.gather(*held)
            return found

    assert asyncio.run(scenario()) < REQUESTS
