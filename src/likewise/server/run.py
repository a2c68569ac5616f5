"""The app in the foreground, under uvicorn: port first, then the model; signals drain."""

from __future__ import annotations

import asyncio
import gc
import resource
import secrets
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from likewise.server.metrics import Metrics
from likewise.server.port import listen, url_of
from likewise.server.protocol import limited_protocol
from likewise.server.server_options import ServerOptions
from likewise.server.service import ModelService, ServiceState

OPEN_FILES = 10_240  # each connection is one; macOS allows a process no more
SETTLE_S = 1.0  # after the listener has closed: for connections that were accepted and have not asked yet
LOOK_S = 0.02  # how often to look whether the model is warm

Announce = Callable[[str], None]


def run(
    app: Starlette,
    options: ServerOptions | None = None,
    *,
    listener: socket.socket | None = None,
    leave_on: signal.Signals | None = None,
    on_listening: Announce | None = None,
    on_ready: Announce | None = None,
    on_left: Announce | None = None,
) -> None:
    """Serve `app`, from `create_app`, until SIGTERM or SIGINT; requests in flight are answered first.

    `on_listening` and `on_ready` get the real URL, once each.  Raises PortTaken and WrongUsage (an address) at once,
    and what loading the engine raised.
    listener: one that other processes share.  Then nothing is accepted before the model is warm, one that does not
    become warm is an error.  leave_on: the signal on which this process leaves such a listener to the others, of which
    `on_left` is told, and ends as soon as its connections are answered.
    """
    options = options or ServerOptions()
    service: ModelService = app.state.service
    _raise_file_limit()
    guarded = options.insecure or options.token_file is not None
    sock = listener or listen(options.host, options.port, guarded=guarded)
    config = _config(app, app if listener is None else _warm_first(app, service), options)
    server = _Server(config, service, options.drain_linger_s, on_listening, on_ready, on_left)
    if leave_on is not None:
        signal.signal(leave_on, server.hand_over)
    try:
        server.run(sockets=[sock])
    except SystemExit:  # uvicorn's, where the start was called off
        if listener is None:
            raise
    finally:
        sock.close()
    failure = service.failure or (None if listener is None else service.problem)
    if failure is not None:
        raise failure


def _config(app: Starlette, served: ASGIApp, options: ServerOptions) -> uvicorn.Config:
    service: ModelService = app.state.service
    metrics: Metrics = app.state.metrics
    return uvicorn.Config(
        served,
        http=limited_protocol(
            options,
            lambda: [*service.headers, (b"x-request-id", secrets.token_hex(16).encode())],
            lambda status: metrics.answered("refused", status, 0.0),
        ),
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=options.keep_alive_s,
        timeout_graceful_shutdown=options.drain_timeout_s,
    )


def _warm_first(app: ASGIApp, service: ModelService) -> ASGIApp:
    """`app`, whose start ends when the model is warm, or fails; the listener is opened after that."""

    async def warm(scope: Scope, receive: Receive, send: Send) -> None:
        async def when_warm(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete" and not await _is_warm(service):
                message = {"type": "lifespan.startup.failed", "message": "the model does not become ready"}
            await send(message)

        await app(scope, receive, when_warm if scope["type"] == "lifespan" else send)

    return warm


async def _is_warm(service: ModelService) -> bool:
    """Once it is decided: a failure and a signal say no."""
    while service.state is ServiceState.LOADING and not (service.failure or service.problem):
        await asyncio.sleep(LOOK_S)
    return service.state is ServiceState.READY


def _raise_file_limit() -> None:
    """As many connections as the system allows this process: many systems start one with 1,024 open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _keep_what_is_loaded() -> None:
    """Out of the garbage collector's sight: to walk over a model's libraries stops every request for a tenth second.

    What is left is collected after more new objects than by default; requests make none that need it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


class _Server(uvicorn.Server):
    """uvicorn, with a drain that drops nobody: not ready first, then no new connections, then the end."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: ModelService,
        linger_s: float,
        on_listening: Announce | None,
        on_ready: Announce | None,
        on_left: Announce | None,
    ) -> None:
        super().__init__(config)
        self._service = service
        self._linger_s = linger_s
        self._draining_since: float | None = None
        self._on_listening = on_listening
        self._on_ready = on_ready
        self._on_left = on_left
        self._url = ""
        self._settled = False
        self._handing_over = False
        self._listeners: Sequence[socket.socket] = ()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listeners = sockets or ()
        self._url = url_of(sockets[0]) if sockets else ""
        if self._on_listening is not None:
            self._on_listening(self._url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A signal drains and the process ends with 0; a Ctrl-C after it ends it within RELEASE_S."""
        if self._draining_since is not None and sig == signal.SIGINT:
            self.should_exit = self.force_exit = True
        elif self._draining_since is None:
            self._draining_since = time.monotonic()
            self._service.drain()

    def hand_over(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Leave the listener to the others at the next tick; who is connected is answered, and told to close."""
        self._handing_over = True

    async def on_tick(self, counter: int) -> bool:
        if self._handing_over and self._draining_since is None:
            self._leave()
        if not self._settled and self._service.state is ServiceState.READY:
            self._settled = True
            _keep_what_is_loaded()
            if self._on_ready is not None:
                self._on_ready(self._url)
        if self._service.failure is not None or self._lingered():
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        settled = time.monotonic() + SETTLE_S
        while _has_callers([each for each in sockets or () if each.fileno() >= 0]) and time.monotonic() < settled:
            await asyncio.sleep(0)  # the loop accepts them; closing now would reset them
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await asyncio.sleep(0.02)  # who was accepted last is among the connections then
        while self.server_state.connections and time.monotonic() < settled and not self.force_exit:
            await asyncio.sleep(0.02)
        ending = asyncio.create_task(super().shutdown(sockets))
        while not ending.done() and not self.force_exit:
            await asyncio.wait((ending,), timeout=0.05)
        if not self.force_exit:  # else the loop, as it ends, cancels all that is left, and each request is answered
            await ending

    def _leave(self) -> None:
        """Ready it stays, as the deployment is: only its connections end."""
        self._draining_since = time.monotonic()
        self._service.headers = [*self._service.headers, (b"connection", b"close")]
        for server in self.servers:
            server.close()
        for listener in self._listeners:
            listener.close()
        if self._on_left is not None:
            self._on_left(self._url)

    def _lingered(self) -> bool:
        if self._draining_since is None:
            return False
        return not self.server_state.connections or time.monotonic() - self._draining_since >= self._linger_s


def _has_callers(listeners: Sequence[socket.socket]) -> bool:
    """Whether a connection waits to be accepted."""
    with selectors.DefaultSelector() as selector:
        for listener in listeners:
            selector.register(listener, selectors.EVENT_READ)
        return bool(selector.select(0))
