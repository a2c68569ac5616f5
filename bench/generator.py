"""A load generator for HTTP/1.1: closed loop (each connection asks when it was answered) and open loop (at a set rate).

Waits are counted from when a request was due, not from when it could be sent, so that a server that stalls cannot hide
it.  One thread of uvloop and httptools: several thousand requests a second, each with an identity of its own.
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
"""What became of a request: `refused` a connection, `cut` off without an answer, `silent` when patience ended."""

HEAD = b"POST /invocations HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
TICK_S = 0.0005
RETRY_S = 0.02  # before a closed loop tries a refused connection again
PATIENCE_S = 30.0  # for answers that are outstanding when a load ends


@dataclass(slots=True)
class Ask:
    """One request. number: unique in its load; kind: the sort of text; texts: its rows."""

    number: int
    kind: str
    texts: list[str]
    body: bytes


@dataclass(slots=True)
class Outcome:
    """What became of one request; times in seconds of the loop's clock.

    connected: its connection had carried an answer before, so the server certainly held it.
    """

    ask: Ask
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
        """Seconds from when it was due."""
        return self.ended - self.due


class _Connection(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self, caller: Caller, outcome: Outcome) -> None:
        self._caller = caller
        self.outcome: Outcome | None = outcome
        self._answered = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass of it
        if self.outcome is not None:
            self.carry(self.outcome)

    def carry(self, outcome: Outcome) -> None:
        assert self._transport is not None
        self.outcome = outcome
        outcome.connected = self._answered
        outcome.sent = self._caller.now()
        body = outcome.ask.body
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
        kept = self._parser.should_keep_alive()
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        if kept:
            self._caller.idle.append(self)
        else:
            self.close()
        if done is not None:
            done.status = status
            self._caller.end(done, "answered")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self in self._caller.idle:
            self._caller.idle.remove(self)
        if self.outcome is not None:
            done, self.outcome = self.outcome, None
            self._caller.end(done, "cut")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Caller:
    """Sends requests over idle connections, or over new ones; `on_end` hears what became of each."""

    def __init__(self, port: int, on_end: Callable[[Outcome], None] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time
        self.idle: list[_Connection] = []
        self.outcomes: list[Outcome] = []
        self.on_end = on_end
        self.heard = loop.time()
        self._loop = loop
        self._port = port
        self._pending: dict[int, Outcome] = {}
        self._connecting: set[asyncio.Task[None]] = set()

    def send(self, ask: Ask, due: float | None = None) -> None:
        """At once; `due` is now unless it is said."""
        outcome = Outcome(ask, self.now() if due is None else due)
        self._pending[id(outcome)] = outcome
        if self.idle:
            self.idle.pop().carry(outcome)
            return
        connecting = self._loop.create_task(self._connect(outcome))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)

    def end(self, outcome: Outcome, fate: Fate) -> None:
        """Nothing more comes of this request."""
        if self._pending.pop(id(outcome), None) is None:
            return
        outcome.fate = fate
        outcome.ended = self.heard = self.now()
        self.outcomes.append(outcome)
        if self.on_end is not None:
            self.on_end(outcome)

    async def settled(self, patience: float = PATIENCE_S) -> list[Outcome]:
        """Every outcome, once all have one, or silent where `patience` seconds were not enough."""
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
    port: int, asks: Iterator[Ask], connections: int, *, seconds: float = 600.0, patience: float = PATIENCE_S
) -> list[Outcome]:
    """`connections` callers that ask on as soon as they are answered, for `seconds` or until `asks` ends.

    Given up where nothing is heard for `patience` seconds.
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
        ask = next(asks, None) if loop.time() < until else None
        if ask is not None:
            caller.send(ask)
            return
        working -= 1
        if not working:
            ended.set()

    caller = Caller(port, following)
    for _ in range(connections):
        following()
    while not ended.is_set() and loop.time() - caller.heard < patience:
        await asyncio.sleep(TICK_S * 10)
    return await caller.settled(0.0)


async def opened(
    port: int,
    asks: Iterator[Ask],
    rate: float,
    seconds: float,
    *,
    until_refused: bool = False,
    patience: float = PATIENCE_S,
) -> list[Outcome]:
    """Requests at `rate` a second whatever becomes of them, at random moments (seeded).

    Ends after `seconds`; with `until_refused` also once a connection is refused, as after a listener has closed.
    """
    refused = asyncio.Event()
    caller = Caller(port, lambda outcome: refused.set() if outcome.fate == "refused" else None)
    moments = random.Random(8)
    due = caller.now()
    until = due + seconds
    while due < until and not (until_refused and refused.is_set()):
        while due <= caller.now() and due < until:
            caller.send(next(asks), due)
            due += moments.expovariate(rate)
        await asyncio.sleep(max(TICK_S, min(due, until) - caller.now()))
    return await caller.settled(patience)


def go(load: Coroutine[Any, Any, T]) -> T:
    """Run a load to its end."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load)
