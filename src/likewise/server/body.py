"""Reading a request's body: within its limit, in time, and inflated where it comes compressed.

Sources: RFC 9110, 8.4 (content codings), 15.5.9 (408), 15.5.14 (413); RFC 1952, 2.2 (a gzip body may have members).
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

DRAINED = 8  # times the limit: so much of a body too large is read and thrown away
STEP_BYTES = 256 * 1024  # inflated at a time, so that others are served meanwhile
MAX_MEMBERS = 1000  # of a gzip body; each costs some microseconds, and may hold nothing

_WBITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def read_body(receive: Receive, headers: Headers, *, limit: int, timeout_s: float) -> bytes:
    """The whole body: at most `limit` bytes, as sent and as inflated, all of which arrive within `timeout_s` seconds.

    One that is refused is read to its end all the same, within that time and DRAINED times the limit, because a client
    that is still sending would not read the answer.  Raises BodyTimeout, BodyTooLarge, BadRequest (compressed bytes
    that are damaged), UnsupportedContentType (a coding other than gzip and deflate) and ClientDisconnect.
    """
    arriving = _Arriving(receive, headers)
    refusal: LikewiseError | None = None
    try:
        async with asyncio.timeout(timeout_s):
            try:
                return await _read(arriving, headers, limit)
            except LikewiseError as error:
                refusal = error
                await arriving.drain(limit * DRAINED)
    except TimeoutError:
        refusal = refusal or BodyTimeout(
            f"of the request's body {arriving.size:,} bytes arrived within {timeout_s:g} s, and not its end",
            remedy="send it faster, or fewer rows a request",
        )
    raise refusal


class _Arriving:
    """The body as the client sends it; `size` bytes so far, of the `declared` ones (0 where it did not say)."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        length = headers.get("content-length", "")
        self.declared = int(length) if length.isdecimal() else 0
        self.size = 0
        self._receive = receive
        self._more = True
        self._asks_first = headers.get("expect", "").lower() == "100-continue"

    async def next(self) -> bytes | None:
        """The next bytes, None at the end.  Raises ClientDisconnect."""
        if not self._more:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._more = message.get("more_body", False)
        data: bytes = message.get("body", b"")
        self.size += len(data)
        return data

    async def drain(self, most: int) -> None:
        """Read what is left, where it is no more than `most` bytes in all and the client does not wait to be told."""
        if self.declared > most or (self._asks_first and not self.size):
            return
        while self.size <= most and await self.next() is not None:
            pass


async def _read(arriving: _Arriving, headers: Headers, limit: int) -> bytes:
    inflater = _inflater(headers)
    if arriving.declared > limit:
        raise _too_large(limit)
    body = BytesIO()
    while (data := await arriving.next()) is not None:
        if arriving.size > limit:
            raise _too_large(limit)
        for piece in inflater.feed(data) if inflater else (data,):
            body.write(piece)
            if body.tell() > limit:
                raise _too_large(limit)
            if len(piece) == STEP_BYTES:
                await asyncio.sleep(0)
    if inflater:
        inflater.end()
    return body.getvalue()


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has more than the {limit:,} bytes that this server takes", remedy="send fewer rows a request"
    )


def _inflater(headers: Headers) -> _Inflater | None:
    coding = ", ".join(headers.getlist("content-encoding")).strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in _WBITS:
        raise UnsupportedContentType(
            f"the content encoding {coding!r} is not read here", remedy="send it as gzip, as deflate, or uncompressed"
        )
    return _Inflater(coding)


class _Inflater:
    """The inflated bytes of a body that comes in parts, STEP_BYTES at most at a time."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._members = 1
        self._stream = zlib.decompressobj(_WBITS[coding])

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` inflates to.  Raises BadRequest where it does not."""
        piece = b""
        while data or len(piece) == STEP_BYTES:  # a full piece may leave more inside zlib
            if self._stream.eof and data:
                self._next_member()
            try:
                piece = self._stream.decompress(data, STEP_BYTES)
            except zlib.error as error:
                raise self._damaged(str(error)) from error
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            yield piece

    def end(self) -> None:
        """The body is over.  Raises BadRequest where its compressed bytes are not."""
        if not self._stream.eof:
            raise self._damaged("it ends too early")

    def _next_member(self) -> None:
        self._members += 1
        if self._coding == "deflate":
            raise self._damaged("something follows its end")
        if self._members > MAX_MEMBERS:
            raise self._damaged(f"it has more than {MAX_MEMBERS:,} members")
        self._stream = zlib.decompressobj(_WBITS[self._coding])

    def _damaged(self, why: str) -> BadRequest:
        return BadRequest(f"the body is no {self._coding} that can be read: {why}", remedy="compress it anew")
