"""Read a request's body within size and time limits, and decompress it if it is compressed.

Sources: RFC 9110, 8.4 (content codings), 15.5.9 (408), 15.5.14 (413); RFC 1952, 2.2 (gzip members).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from io import BytesIO

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from likewise.core.errors import BadRequest, BodyTimeout, BodyTooLarge, LikewiseError, UnsupportedContentType
from likewise.server.in_flight import Share

DRAIN_FACTOR = 8  # the rest of a rejected body is read and discarded up to this multiple of the limit
CHUNK_BYTES = 256 * 1024  # inflated at a time, so that other requests are not blocked
MAX_MEMBERS = 1000  # of a gzip body; even an empty member costs some microseconds

_WBITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def read_body(receive: Receive, headers: Headers, *, limit: int, timeout_s: float, share: Share) -> bytes:
    """The complete body, decompressed: at most `limit` bytes, both as sent and inflated, within `timeout_s` seconds.

    `share` grows with the body; one that would be too large according to its Content-Length is rejected unread.
    A rejected body is still read to its end, within that time and DRAIN_FACTOR times the limit, because a client that
    is still sending would not read the response.  Raises BodyTimeout, BodyTooLarge, Overloaded, BadRequest (corrupt
    compressed data), UnsupportedContentType (a coding other than gzip and deflate) and ClientDisconnect.
    """
    stream = _BodyStream(receive, headers)
    rejection: LikewiseError | None = None
    try:
        async with asyncio.timeout(timeout_s):
            try:
                return await _read(stream, headers, limit, share)
            except LikewiseError as error:
                rejection = error
                await stream.drain(limit * DRAIN_FACTOR)
    except TimeoutError:
        rejection = rejection or BodyTimeout(
            f"the request's body was incomplete after {timeout_s:g} s; {stream.size:,} bytes arrived",
            remedy="send the body faster, or fewer rows per request",
        )
    raise rejection


class _BodyStream:
    """The body as it arrives: `size` bytes so far, of `declared` bytes (0 if there is no Content-Length)."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        length = headers.get("content-length", "")
        self.declared = int(length) if length.isdecimal() else 0
        self.size = 0
        self._receive = receive
        self._more = True
        self._expects_continue = headers.get("expect", "").lower() == "100-continue"

    async def next(self) -> bytes | None:
        """The next bytes, or None at the end.  Raises ClientDisconnect."""
        if not self._more:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._more = message.get("more_body", False)
        data: bytes = message.get("body", b"")
        self.size += len(data)
        return data

    async def drain(self, limit: int) -> None:
        """Discard the rest of a body of at most `limit` bytes, unless the client waits for a `100 Continue`."""
        if self.declared > limit or (self._expects_continue and not self.size):
            return
        while self.size <= limit and await self.next() is not None:
            pass


async def _read(stream: _BodyStream, headers: Headers, limit: int, share: Share) -> bytes:
    inflater = _inflater(headers)
    if stream.declared > limit:
        raise _too_large(limit)
    share.check(stream.declared)
    body = BytesIO()
    while (data := await stream.next()) is not None:
        if stream.size > limit:
            raise _too_large(limit)
        for piece in inflater.feed(data) if inflater else (data,):
            body.write(piece)
            if body.tell() > limit:
                raise _too_large(limit)
            share.grow(body.tell())
            if len(piece) == CHUNK_BYTES:
                await asyncio.sleep(0)
    if inflater:
        inflater.end()
    return body.getvalue()


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body is larger than this server's limit of {limit:,} bytes", remedy="send fewer rows per request"
    )


def _inflater(headers: Headers) -> _Inflater | None:
    coding = ", ".join(headers.getlist("content-encoding")).strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in _WBITS:
        raise UnsupportedContentType(
            f"the content encoding {coding!r} is not supported",
            remedy="send the body as gzip, deflate, or uncompressed",
        )
    return _Inflater(coding)


class _Inflater:
    """Decompresses a body that arrives in parts, at most CHUNK_BYTES at a time."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._members = 1
        self._stream = zlib.decompressobj(_WBITS[coding])

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress `data` in pieces.  Raises BadRequest if it is corrupt."""
        piece = b""
        while data or len(piece) == CHUNK_BYTES:  # a full piece may leave more inside zlib
            if self._stream.eof and data:
                self._next_member()
            try:
                piece = self._stream.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                raise self._damaged(str(error)) from error
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            yield piece

    def end(self) -> None:
        """Call at the end of the body.  Raises BadRequest if the compressed data is incomplete."""
        if not self._stream.eof:
            raise self._damaged("it is truncated")

    def _next_member(self) -> None:
        self._members += 1
        if self._coding == "deflate":
            raise self._damaged("there is data after its end")
        if self._members > MAX_MEMBERS:
            raise self._damaged(f"it has more than {MAX_MEMBERS:,} members")
        self._stream = zlib.decompressobj(_WBITS[self._coding])

    def _damaged(self, why: str) -> BadRequest:
        return BadRequest(f"the body is not valid {self._coding} data: {why}", remedy="compress the body again")
