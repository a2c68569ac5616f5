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

from likewise.server.metrics import Metrics
from likewise.server.options import ServerOptions
from likewise.server.port import listen, url_of
from likewise.server.protocol import limited_protocol
from likewise.server.service import Service, State

OPEN_FILES = 10_240  # each connection is one; macOS allows a process no more
SETTLE_S = 1.0  # after the listener has closed: for connections that were accepted and have not asked yet

Announce = Callable[[str], None]


def run(
    app: Starlette,
    options: ServerOptions | None = None,
    *,
    on_listening: Announce | None = None,
    on_ready: Announce | None = None,
) -> None:
    """Serve `app`, from `create_app`, until SIGTERM or SIGINT; requests in flight are answered first.

    `on_listening` and `on_ready` get the real URL, once each.  Raises PortTaken and WrongUsage (an address) at once,
    and what loading the engine raised.
    """
    options = options or ServerOptions()
    service: Service = app.state.service
    metrics: Metrics = app.state.metrics
    _raise_file_limit()
    sock = listen(options.host, options.port, guarded=options.insecure or options.token_file is not None)
    config = uvicorn.Config(
        app,
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
    server = _Server(config, service, options.drain_linger_s, on_listening, on_ready)
    try:
        server.run(sockets=[sock])
    finally:
        sock.close()
    if service.failure is not None:
        raise service.failure


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
        service: Service,
        linger_s: float,
        on_listening: Announce | None,
        on_ready: Announce | None,
    ) -> None:
        super().__init__(config)
        self._service = service
        self._linger_s = linger_s
        self._draining_since: float | None = None
        self._on_listening = on_listening
        self._on_ready = on_ready
        self._url = ""
        self._settled = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
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

    async def on_tick(self, counter: int) -> bool:
        if not self._settled and self._service.state is State.READY:
            self._settled = True
            _keep_what_is_loaded()
            if self._on_ready is not None:
                self._on_ready(self._url)
        if self._service.failure is not None or self._lingered():
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        settled = time.monotonic() + SETTLE_S
        while _has_callers(sockets or []) and time.monotonic() < settled:
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
