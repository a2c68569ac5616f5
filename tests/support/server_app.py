"""A small real engine, and an app for it that is called without a socket."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.support.waiting import until

from likewise.core.engine import Engine, EngineSpec, Work
from likewise.core.items import Item, Request, Row
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Signature
from likewise.server import ServedModel, ServerOptions
from likewise.server.app import create_app

TEXT = Signature.parse({"inputs": json.dumps([{"type": "string", "name": "text", "required": True}])})


class Upper:
    """Predicts `{"text": TEXT}`; raises for texts starting with `bad`; waits while `gate` is closed."""

    def __init__(self, *, row_wise: bool = True) -> None:
        self.spec = EngineSpec("upper", "none", row_wise, False, True, 512)
        self.gate = threading.Event()
        self.gate.set()
        self.seen: list[str] = []
        self.closed = False

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return [Work(repr(item), 1, item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        self.gate.wait()
        return [Ok(self._predict(entry.payload)) for entry in work]

    def close(self) -> None:
        self.closed = True

    def _predict(self, item: Any) -> object:
        if isinstance(item, Request):
            return [self._one(row[0]) for row in item.table.rows]
        assert isinstance(item, Row)
        return self._one(item.get("text"))

    def _one(self, text: Any) -> dict[str, object]:
        self.seen.append(text)
        if text.startswith("bad"):
            raise ValueError(f"{text} is bad")
        return {"text": text.upper()}


def upper_app(
    open_engine: Callable[[], Engine] = Upper,
    *,
    example: bytes | None = None,
    options: ServerOptions | None = None,
    signature: Signature = TEXT,
) -> Starlette:
    model = ServedModel(name="<upper>", digest="sha256:abc", signature=signature, example=example)
    return create_app(open_engine, model, options)


@asynccontextmanager
async def client_of(app: Starlette, *, wait: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running app; `wait` until its model is loaded, or has failed to load."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        service = app.state.service
        async with asyncio.timeout(10):
            while wait and service.state.value == "loading" and not (service.failure or service.problem):
                await asyncio.sleep(0.001)
        yield client


@contextmanager
def mounted(apps: Mapping[str, Starlette]) -> Iterator[str]:
    """The address of a server in this process that has each app below `/NAME`."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for app in apps.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    app = Starlette(routes=[Mount(f"/{name}", app) for name, app in apps.items()], lifespan=lifespan)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        host, port = server.servers[0].sockets[0].getsockname()
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()
