"""A load generator for HTTP/1.1: closed loop (each connection waits for its response) and open loop (at a fixed rate).

Latencies count from the time when a request was due, not from when it could be sent, so that a stalled server cannot
hide them. One thread with uvloop and httptools sends several thousand requests per second, each with a unique id.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import httptools
import uvloop

T = TypeVar("T")

Fate = Literal["answered", "refused", "cut", "silent"]
"""The outcome of a request: `refused` connection, `cut` off without a response, `silent` after a timeout."""

HEAD = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
TICK_S = 0.0005
RETRY_S = 0.02  # before a closed loop retries a refused connection
PATIENCE_S = 30.0  # timeout for responses that are outstanding when a load ends


@dataclass(slots=True)
class Request:
    """One request. number: unique within a load; kind: the kind of text; texts: its rows."""

    number: int
    kind: str
    texts: list[str]
    body: bytes


@dataclass(slots=True)
class Outcome:
    """The outcome of one request; times in seconds of the loop's clock.

    connected: its connection had delivered a response before, so the server had certainly accepted it.
    """

    request: Request
    due: float
    sent: float = 0.0
    ended: float = 0.0
    fate: Fate = "silent"
    status: int = 0
    body: bytes = b""
    retry_after: str | None = None
    connected: bool = False

    @property
    def wait(self) -> float:
        """Latency in seconds from the time when the request was due."""
        return self.ended - self.due


class _Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time."""

    def __init__(self, client: Client, outcome: Outcome) -> None:
        self._client = client
        self.outcome: Outcome | None = outcome
        self._answered = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class is not a subclass of it
        if self.outcome is not None:
            self.send(self.outcome)

    def send(self, outcome: Outcome) -> None:
        assert self._transport is not None
        self.outcome = outcome
        outcome.connected = self._answered
        outcome.sent = self._client.now()
        body = outcome.request.body
        self._transport.write(HEAD % len(body) + body)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.outcome is not None and name.lower() == b"retry-after":
            self.outcome.retry_after = value.decode()

    def on_body(self, part: bytes) -> None:
        if self.outcome is not None:
            self.outcome.body += part

    def on_message_complete(self) -> None:
        done, self.outcome = self.outcome, None
        self._answered = True
        keep_alive = self._parser.should_keep_alive()
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        if keep_alive:
            self._client.idle.append(self)
        else:
            self.close()
        if done is not None:
            done.status = status
            self._client.end(done, "answered")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self in self._client.idle:
            self._client.idle.remove(self)
        if self.outcome is not None:
            done, self.outcome = self.outcome, None
            self._client.end(done, "cut")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Client:
    """Sends requests over idle or new connections; `on_end` is called with the outcome of each."""

    def __init__(self, port: int, on_end: Callable[[Outcome], None] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time
        self.idle: list[_Connection] = []
        self.outcomes: list[Outcome] = []
        self.on_end = on_end
        self.last_end = loop.time()
        self._loop = loop
        self._port = port
        self._pending: dict[int, Outcome] = {}
        self._connecting: set[asyncio.Task[None]] = set()

    def send(self, request: Request, due: float | None = None) -> None:
        """Send a request immediately; due: the scheduled time, default now."""
        outcome = Outcome(request, self.now() if due is None else due)
        self._pending[id(outcome)] = outcome
        if self.idle:
            self.idle.pop().send(outcome)
            return
        connecting = self._loop.create_task(self._connect(outcome))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)

    def end(self, outcome: Outcome, fate: Fate) -> None:
        """Record the outcome of a request."""
        if self._pending.pop(id(outcome), None) is None:
            return
        outcome.fate = fate
        outcome.ended = self.last_end = self.now()
        self.outcomes.append(outcome)
        if self.on_end is not None:
            self.on_end(outcome)

    async def settled(self, patience: float = PATIENCE_S) -> list[Outcome]:
        """All outcomes; waits up to `patience` seconds for pending ones, which then become `silent`."""
        until = self.now() + patience
        while self._pending and self.now() < until:
            await asyncio.sleep(0.005)
        self.on_end = None
        for outcome in list(self._pending.values()):
            self.end(outcome, "silent")
        for connection in list(self.idle):
            connection.close()
        return self.outcomes

    async def _connect(self, outcome: Outcome) -> None:
        try:
            await self._loop.create_connection(lambda: _Connection(self, outcome), "127.0.0.1", self._port)
        except OSError:
            self.end(outcome, "refused")


async def closed(
    port: int, requests: Iterator[Request], connections: int, *, seconds: float = 600.0, patience: float = PATIENCE_S
) -> list[Outcome]:
    """Closed loop of `connections` clients, for `seconds` or until `requests` ends.

    Stops if nothing is received for `patience` seconds.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    ended = asyncio.Event()
    working = connections

    def following(outcome: Outcome | None = None) -> None:
        nonlocal working
        if outcome is not None and outcome.fate == "refused" and loop.time() < until:
            loop.call_later(RETRY_S, following)
            return
        request = next(requests, None) if loop.time() < until else None
        if request is not None:
            client.send(request)
            return
        working -= 1
        if not working:
            ended.set()

    client = Client(port, following)
    for _ in range(connections):
        following()
    while not ended.is_set() and loop.time() - client.last_end < patience:
        await asyncio.sleep(TICK_S * 10)
    return await client.settled(0.0)


async def opened(
    port: int,
    requests: Iterator[Request],
    rate: float,
    seconds: float,
    *,
    until_refused: bool = False,
    patience: float = PATIENCE_S,
) -> list[Outcome]:
    """Open loop: `rate` requests per second at random (seeded) times, regardless of responses.

    Ends after `seconds`; with `until_refused` also when a connection is refused, as after a listener has closed.
    """
    refused = asyncio.Event()
    client = Client(port, lambda outcome: refused.set() if outcome.fate == "refused" else None)
    moments = random.Random(8)
    due = client.now()
    until = due + seconds
    while due < until and not (until_refused and refused.is_set()):
        while due <= client.now() and due < until:
            client.send(next(requests), due)
            due += moments.expovariate(rate)
        await asyncio.sleep(max(TICK_S, min(due, until) - client.now()))
    return await client.settled(patience)


def go(load: Coroutine[Any, Any, T]) -> T:
    """Run a load to completion."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load)
