"""HTTP/1.1 on one connection: uvicorn's protocol, with limits against slow clients, endless data and invalid HTTP.

Sources: RFC 9110 (15.5.9, 408), RFC 9112 (9.3.2 pipelining, 9.5 time-outs, 9.6 closing).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from likewise.server.error_responses import error_body
from likewise.server.invocations import ABORT
from likewise.server.request_head import SLICE_BYTES, HeadRefused, LimitedHead
from likewise.server.server_options import ServerOptions
from likewise.wire import JSON

logger = logging.getLogger("likewise.server")

PIPELINED = 8  # requests queued behind the current one; further data stays unparsed
LINGER_S = 2.0  # a rejected client may still be sending, and a reset would make it lose the response

Identity = Callable[[], list[tuple[bytes, bytes]]]


def limited_protocol(
    options: ServerOptions, identity: Identity, refused: Callable[[int], None]
) -> type[LimitedProtocol]:
    """The class for `uvicorn.Config(http=...)`, within the limits of `options`.

    identity: returns the headers of responses that the app did not send, because their request was rejected before.
    refused: called with the status of each of these responses.
    """

    class Protocol(LimitedProtocol):
        header_bytes = options.header_limit_bytes
        header_s = options.header_timeout_s
        stall_s = options.read_timeout_s
        write_s = options.deadline_s
        identify = staticmethod(identity)
        on_refused = staticmethod(refused)

    return Protocol


class LimitedProtocol(LimitedHead):
    """One connection.

    At any time it is receiving a head (limited in bytes, headers and seconds), responding (limited by the app),
    receiving the rest of an unread body (limited in seconds), idle (`timeout_keep_alive`) or rejected.
    """

    header_s: float  # seconds for a request's headers to arrive
    stall_s: float  # seconds for the rest of a body after its response was sent, and for a client that does not read
    write_s: float  # seconds in which a client must read the last part of a response
    identify: Identity
    on_refused: Callable[[int], None]

    _timer: asyncio.TimerHandle | None = None
    _on_timeout: Callable[[], None] | None = None  # what `_timer` will call
    _write_timer: asyncio.TimerHandle | None = None
    _unsent = 0
    _writing_since: float | None = None  # the time since when the client has been behind with reading
    _running: RequestResponseCycle | None = None
    _unparsed = b""
    _rejection: HeadRefused | None = None  # sent after the responses to the requests before it

    # --- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.rejected, self._unparsed = True, b""
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        if self._running is not None and not self._running.response_complete:
            self._hang_up(self._running)  # uvicorn notifies only the newest of several pipelined requests
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.rejected:
            return
        self._unset_keepalive_if_required()
        if self._unparsed:
            self._defer(self._unparsed + data)
        else:
            self._parse_slices(data)
        self._update_timer()

    def _parse_slices(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE_BYTES):
            if self.rejected:
                return
            if len(self.pipeline) >= PIPELINED:
                self._defer(data[start:])
                return
            self.parse(data[start : start + SLICE_BYTES])

    def _defer(self, data: bytes) -> None:
        """Keep `data` unparsed, and stop reading, until a response is complete."""
        self._unparsed = data
        self.flow.pause_reading()

    # --- responses ---------------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        cycle.scope["extensions"] = {ABORT: {"call": self.transport.abort}}
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_writes()
            return
        if self._rejection is not None:
            if not self._responding():
                self._unset_keepalive_if_required()
                self._send(self._rejection)
        elif self._unparsed:
            data, self._unparsed = self._unparsed, b""
            self.data_received(data)
        else:
            self._update_timer()

    def _responding(self) -> bool:
        return bool(self.pipeline) or (self._running is not None and not self._running.response_complete)

    def refuse(self, refused: HeadRefused) -> None:
        """Stop parsing; send the error response after those of earlier requests, then close."""
        logger.info("rejected a request from %s: %s", self.client, refused)
        self.on_refused(refused.status)
        self.rejected, self._rejection = True, refused
        self._arm(0, None)
        if self.in_body:
            self._drop_newest()
        if not self._responding() and not self.transport.is_closing():
            self._send(refused)

    def _drop_newest(self) -> None:
        """Drop the request whose body is malformed, so that only the error response is sent."""
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
        self.flow.resume_reading()  # data that still arrives is read and discarded
        self._arm(LINGER_S, self._close)

    @staticmethod
    def _hang_up(cycle: RequestResponseCycle) -> None:
        """Notify the app that the client of this request has disconnected."""
        cycle.disconnected = True
        cycle.message_event.set()

    # --- timeouts ----------------------------------------------------------------------------------------------------

    def _update_timer(self) -> None:
        """Start the timeout for the connection's state, unless it is already running."""
        if self.rejected or self.transport.is_closing():
            return
        if self._responding():
            self._arm(0, None)
        elif self.in_head:
            self._arm(self.header_s, self._head_timeout)
        elif self.in_body:
            self._arm(self.stall_s, self._close)
        else:
            self._arm(0, None)
            if self.timeout_keep_alive_task is None:
                idle_s, close = self.timeout_keep_alive, self.timeout_keep_alive_handler
                self.timeout_keep_alive_task = self.loop.call_later(idle_s, close)
            return
        self._unset_keepalive_if_required()

    def _arm(self, seconds: float, on_timeout: Callable[[], None] | None) -> None:
        """Call `on_timeout` after `seconds`, unless that is scheduled already; None stops the timer."""
        if on_timeout == self._on_timeout:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._on_timeout = on_timeout
        self._timer = None if on_timeout is None else self.loop.call_later(seconds, on_timeout)

    def _head_timeout(self) -> None:
        if not self.started:
            self._close()
            return
        self.refuse(
            HeadRefused(
                f"the request's headers did not arrive within {self.header_s:g} s",
                remedy="send the headers without delay",
                status=408,
            )
        )

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        self._close()

    def pause_writing(self) -> None:
        """The client is not reading its responses fast enough."""
        super().pause_writing()
        self._watch_writes()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writing_since = None
        super().resume_writing()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            self._watch_writes()

    def _watch_writes(self) -> None:
        """Abort the connection if its client reads nothing for `stall_s`, or is behind for `write_s`.

        A plain close would wait for it forever.
        """
        self._unsent = self.transport.get_write_buffer_size()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if self._unsent:
            if self._writing_since is None:
                self._writing_since = self.loop.time()
            self._write_timer = self.loop.call_later(min(self.stall_s, self.write_s), self._check_writes)

    def _check_writes(self) -> None:
        behind_s = 0.0 if self._writing_since is None else self.loop.time() - self._writing_since
        if self.transport.get_write_buffer_size() >= self._unsent or behind_s >= self.write_s:
            self.transport.abort()
        else:
            self._watch_writes()
