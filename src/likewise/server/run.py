"""Run the app in the foreground under uvicorn: bind the port, load the model, drain on a signal."""

from __future__ import annotations

import asyncio
import gc
import resource
import secrets
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import cast

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE

from likewise.core.ending import end_descendants, watch_signals
from likewise.server.metrics import Metrics
from likewise.server.port import listen, url_of
from likewise.server.protocol import limited_protocol
from likewise.server.server_options import ServerOptions
from likewise.server.service import Headers, ModelService, ServiceState

OPEN_FILES = 10_240  # one per connection; the most that macOS allows a process
SETTLE_S = 1.0  # how long to wait for pending connections to be accepted and to send their requests
POLL_S = 0.02  # interval for checking whether the model is warm

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
    """Serve `app`, from `create_app`, until SIGTERM, SIGINT or SIGHUP, then finish the requests in flight.

    `on_listening` and `on_ready` are called once each, with the actual URL.  Raises PortTaken and WrongUsage (invalid
    address) before anything is loaded, and the error if the engine does not load.
    listener: a socket shared with other processes.  Connections are then accepted only after the model is warm, and a
    failed warm-up is an error.  leave_on: the signal on which this process closes its copy of the listener, calls
    `on_left`, and exits as soon as its open connections have their responses.
    """
    options = options or ServerOptions()
    service: ModelService = app.state.service
    _raise_file_limit()
    guarded = options.insecure or options.token_file is not None
    sock = listener or listen(options.host, options.port, guarded=guarded)
    config = _config(app, app if listener is None else _warm_first(app, service), options)
    server = _Server(config, service, options.drain_linger_s, on_listening, on_ready, on_left)
    if leave_on is not None:
        signal.signal(leave_on, server.leave_listener)
    try:
        server.run(sockets=[sock])
    finally:
        sock.close()
        end_descendants()
    failure = service.failure or (None if listener is None else service.problem)
    if failure is not None:
        raise failure
    if server.failed and listener is None:
        raise SystemExit(STARTUP_FAILURE)


def _config(app: Starlette, served: ASGIApp, options: ServerOptions) -> uvicorn.Config:
    service: ModelService = app.state.service
    metrics: Metrics = app.state.metrics

    def names() -> Headers:  # no token has been read yet
        return service.identity if options.token_file is None else ()

    return uvicorn.Config(
        served,
        http=limited_protocol(
            options,
            lambda: [*names(), *service.closing, (b"x-request-id", secrets.token_hex(16).encode())],
            lambda status: metrics.completed("refused", status, 0.0),
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
    """Wrap `app` so that its startup completes only when the model is warm, or fails; the listener opens after that."""

    async def warm(scope: Scope, receive: Receive, send: Send) -> None:
        async def when_warm(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete" and not await _is_warm(service):
                message = {"type": "lifespan.startup.failed", "message": "the model did not become ready"}
            await send(message)

        await app(scope, receive, when_warm if scope["type"] == "lifespan" else send)

    return warm


async def _is_warm(service: ModelService) -> bool:
    """Wait for the outcome of the warm-up; False after a failure or a stop signal."""
    while service.state is ServiceState.LOADING and not (service.failure or service.problem):
        await asyncio.sleep(POLL_S)
    return service.state is ServiceState.READY


def _raise_file_limit() -> None:
    """Raise the limit of open files, and so of connections: many systems default to 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def _freeze_loaded_objects() -> None:
    """Exclude loaded objects from garbage collection: scanning a model's libraries blocks all requests for about 0.1 s.

    The thresholds for new objects are raised because requests create hardly any cyclic garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


class _Server(uvicorn.Server):
    """uvicorn with graceful draining: report not ready, then stop accepting connections, then exit."""

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
        self.failed = False
        self._settled = False
        self._leaving = False
        self._listeners: Sequence[socket.socket] = ()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Also of a terminal that closes, unless the process was started to survive that, as by nohup."""
        with super().capture_signals():
            main = threading.current_thread() is threading.main_thread()
            before = signal.getsignal(signal.SIGHUP)
            if not main or before is signal.SIG_IGN:
                yield
                return
            signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, before)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        watch_signals()  # the event loop has just taken them for itself
        try:
            await super().startup(sockets)
        except SystemExit:  # uvicorn's startup failed; passed on, it would add its frames to the log
            self.should_exit = self.failed = True
            await self.lifespan.shutdown()
            return
        self._listeners = sockets or ()
        self._url = url_of(sockets[0]) if sockets else ""
        if self._on_listening is not None:
            self._on_listening(self._url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Drain and exit with 0; another Ctrl-C during the drain exits within RELEASE_S."""
        if self._draining_since is not None and sig == signal.SIGINT:
            self.should_exit = self.force_exit = True
        elif self._draining_since is None:
            self._draining_since = time.monotonic()
            self._service.drain()

    def leave_listener(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Close this process's copy of the listener at the next tick; open connections are served and then closed."""
        self._leaving = True

    async def on_tick(self, counter: int) -> bool:
        if self._leaving and self._draining_since is None:
            self._leave()
        if not self._settled and self._service.state is ServiceState.READY:
            self._settled = True
            _freeze_loaded_objects()
            if self._on_ready is not None:
                self._on_ready(self._url)
        if self._service.failure is not None or self._lingered():
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        started = time.monotonic()
        settled = started + SETTLE_S
        while _has_waiting([sock for sock in sockets or () if sock.fileno() >= 0]) and time.monotonic() < settled:
            await asyncio.sleep(0)  # lets the loop accept them; closing the listener now would reset them
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await asyncio.sleep(0.02)  # until the last accepted connection is registered
        while self.server_state.connections and time.monotonic() < settled and not self.force_exit:
            await asyncio.sleep(0.02)
        left = (self.config.timeout_graceful_shutdown or 0) - (time.monotonic() - started)
        self.config.timeout_graceful_shutdown = cast("int", max(0.0, left))  # fractions are accepted, too
        stopping = asyncio.create_task(super().shutdown(sockets))
        while not stopping.done() and not self.force_exit:
            await asyncio.wait((stopping,), timeout=0.05)
        if not self.force_exit:  # else the exiting loop cancels the remaining tasks, and each sends an error response
            await stopping

    def _leave(self) -> None:
        """Close the listener but stay ready, as the deployment as a whole is; connections close after a response."""
        self._draining_since = time.monotonic()
        self._service.close_connections()
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


def _has_waiting(listeners: Sequence[socket.socket]) -> bool:
    """Whether a connection is waiting to be accepted."""
    with selectors.DefaultSelector() as selector:
        for listener in listeners:
            selector.register(listener, selectors.EVENT_READ)
        return bool(selector.select(0))
