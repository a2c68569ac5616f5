"""HTTP/1.1 on one connection, within limits: uvicorn's protocol, safe from clients that are slow, endless or wrong.

Sources: RFC 9110 (15.5.9, 408), RFC 9112 (9.3.2 pipelining, 9.5 time-outs, 9.6 closing).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from likewise.server.error_responses import error_body
from likewise.server.request_head import SLICE_BYTES, HeadRefused, LimitedHead
from likewise.server.server_options import ServerOptions
from likewise.wire import JSON

logger = logging.getLogger("likewise.server")

PIPELINED = 8  # requests that wait behind the one being answered before the rest stays unparsed
LINGER_S = 2.0  # a refused client may still be sending, and would lose the answer to a reset

Identity = Callable[[], list[tuple[bytes, bytes]]]


def limited_protocol(
    options: ServerOptions, identity: Identity, refused: Callable[[int], None]
) -> type[LimitedProtocol]:
    """The class for `uvicorn.Config(http=...)`, within the limits of `options`.

    identity: the headers of answers that no app has seen.  refused: told of each such answer's status.
    """

    class Protocol(LimitedProtocol):
        header_bytes = options.header_limit_bytes
        header_s = options.header_timeout_s
        stall_s = options.read_timeout_s
        identify = staticmethod(identity)
        tell_refused = staticmethod(refused)

    return Protocol


class LimitedProtocol(LimitedHead):
    """One connection.

    At any time it is receiving a head (limited in bytes, headers and seconds), answering (which the app limits),
    receiving the rest of a body that nobody reads (limited in seconds), idle (`timeout_keep_alive`) or refused.
    """

    header_s: float  # for a request's headers to arrive
    stall_s: float  # for the rest of a body whose request is answered already, and for a client that takes no answer
    identify: Identity
    tell_refused: Callable[[int], None]

    _clock: asyncio.TimerHandle | None = None
    _late: Callable[[], None] | None = None  # what `_clock` will call
    _write_clock: asyncio.TimerHandle | None = None
    _unsent = 0
    _running: RequestResponseCycle | None = None
    _held = b""
    _refusal: HeadRefused | None = None  # to be sent when the requests before it are answered

    # --- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended, self._held = True, b""
        for clock in (self._clock, self._write_clock):
            if clock is not None:
                clock.cancel()
        self._unset_keepalive_if_required()
        if self._running is not None and not self._running.response_complete:
            self._hang_up(self._running)  # uvicorn tells the newest request only, and pipelined ones hide this one
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.ended:
            return
        self._unset_keepalive_if_required()
        if self._held:
            self._hold(self._held + data)
        else:
            self._parse_slices(data)
        self._watch()

    def _parse_slices(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE_BYTES):
            if self.ended:
                return
            if len(self.pipeline) >= PIPELINED:
                self._hold(data[start:])
                return
            self.parse(data[start : start + SLICE_BYTES])

    def _hold(self, data: bytes) -> None:
        """Keep `data` unparsed until an answer is out, and take no more meanwhile."""
        self._held = data
        self.flow.pause_reading()

    # --- answers -----------------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_writes()
            return
        if self._refusal is not None:
            if not self._answering():
                self._unset_keepalive_if_required()
                self._send(self._refusal)
        elif self._held:
            held, self._held = self._held, b""
            self.data_received(held)
        else:
            self._watch()

    def _answering(self) -> bool:
        return bool(self.pipeline) or (self._running is not None and not self._running.response_complete)

    def refuse(self, refused: HeadRefused) -> None:
        """Take nothing more; answer `refused`, after the requests that came before it, and close."""
        logger.info("refused a request from %s: %s", self.client, refused)
        self.tell_refused(refused.status)
        self.ended, self._refusal = True, refused
        self._arm(0, None)
        if self.in_body:
            self._drop_newest()
        if not self._answering() and not self.transport.is_closing():
            self._send(refused)

    def _drop_newest(self) -> None:
        """The request whose body is wrong gets no other answer."""
        if self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()
        elif self.cycle.response_started:
            self._close()
        else:
            self._hang_up(self.cycle)
            self._running = None

    def _send(self, refused: HeadRefused) -> None:
        body = error_body(refused.error)
        headers = [
            *self.server_state.default_headers,
            *self.identify(),
            (b"content-type", JSON.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[refused.status], *lines, b"\r\n", body]))
        self.transport.write_eof()
        self.flow.resume_reading()  # what still comes is read, and thrown away
        self._arm(LINGER_S, self._close)

    @staticmethod
    def _hang_up(cycle: RequestResponseCycle) -> None:
        cycle.disconnected = True
        cycle.message_event.set()

    # --- clocks ------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Let the clock run that the connection's state asks for; one that runs already goes on."""
        if self.ended or self.transport.is_closing():
            return
        if self._answering():
            self._arm(0, None)
        elif self.in_head:
            self._arm(self.header_s, self._head_late)
        elif self.in_body:
            self._arm(self.stall_s, self._close)
        else:
            self._arm(0, None)
            if self.timeout_keep_alive_task is None:
                idle_s, late = self.timeout_keep_alive, self.timeout_keep_alive_handler
                self.timeout_keep_alive_task = self.loop.call_later(idle_s, late)
            return
        self._unset_keepalive_if_required()

    def _arm(self, seconds: float, late: Callable[[], None] | None) -> None:
        if late == self._late:
            return
        if self._clock is not None:
            self._clock.cancel()
        self._late = late
        self._clock = None if late is None else self.loop.call_later(seconds, late)

    def _head_late(self) -> None:
        if not self.begun:
            self._close()
            return
        self.refuse(
            HeadRefused(
                f"the request's headers did not arrive within {self.header_s:g} s",
                remedy="send them at once",
                status=408,
            )
        )

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for a while: close."""
        self._close()

    def pause_writing(self) -> None:
        """The client does not take its answers."""
        super().pause_writing()
        self._watch_writes()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            self._watch_writes()

    def _watch_writes(self) -> None:
        """Cut the connection if its client takes nothing for `stall_s`: closing alone would wait for it for ever."""
        self._unsent = self.transport.get_write_buffer_size()
        if self._write_clock is not None:
            self._write_clock.cancel()
        self._write_clock = self.loop.call_later(self.stall_s, self._check_writes) if self._unsent else None

    def _check_writes(self) -> None:
        if self.transport.get_write_buffer_size() >= self._unsent:
            self.transport.abort()
        else:
            self._watch_writes()
