"""Compression of responses, for clients that accept gzip.  Source: RFC 9110, 8.4 and 12.5.3 (Accept-Encoding)."""

from __future__ import annotations

import asyncio
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

if TYPE_CHECKING:
    from starlette.datastructures import Headers

LEAST_BYTES = 1024  # smaller responses are sent as they are
OFF_LOOP_BYTES = 32 * 1024  # larger ones are compressed in a thread; zlib releases the GIL
LEVEL = 1  # three times as fast as the default, for a few percent more bytes of JSON
_GZIP = 16 + zlib.MAX_WBITS
_LEFT_ALONE = (204, 206, 304)  # statuses of responses without a body, or with a part of one
_PACKED = ("image/", "font/", "video/", "audio/", "application/gzip", "application/zip")
_LONGEST = 256  # characters of an Accept-Encoding header; longer ones are not read


def compressing(send: Send, method: str, headers: Headers) -> Send:
    """`send`, which compresses the response to this request if its client prefers that."""
    accepted = method != "HEAD" and accepts_gzip(headers.get("accept-encoding", ""))
    return _Response(send, accepted)


def accepts_gzip(header: str) -> bool:
    """Whether a client with this Accept-Encoding header prefers gzip to no compression."""
    return 0 < len(header) <= _LONGEST and _accepts_gzip(header.lower())


@lru_cache(256)
def _accepts_gzip(header: str) -> bool:
    weights: dict[str, float] = {}
    for part in header.split(","):
        coding, _, parameter = part.partition(";")
        weights[coding.strip()] = _weight(parameter)
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


class _Response:
    """One response on its way to the client."""

    def __init__(self, send: Send, accepted: bool) -> None:
        self._send = send
        self._accepted = accepted
        self._start: Message | None = None  # held back until the size of the compressed body is known
        self._stream: Any = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._stream is None:
            await self._send(message)
        else:
            await self._compress(message)

    async def _begin(self, start: Message) -> None:
        headers = MutableHeaders(scope=start)
        if start["status"] not in _LEFT_ALONE and _can_shrink(headers):
            headers.add_vary_header("Accept-Encoding")
            if self._accepted:
                self._start, self._stream = start, zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
                return
        await self._send(start)

    async def _compress(self, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        packed = (
            await asyncio.to_thread(self._pack, body, more) if len(body) > OFF_LOOP_BYTES else self._pack(body, more)
        )
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(_packed(start, None if more else len(packed)))
        if packed or not more:
            await self._send({"type": "http.response.body", "body": packed, "more_body": more})

    def _pack(self, body: bytes, more: bool) -> bytes:
        packed: bytes = self._stream.compress(body)
        return packed if more else packed + self._stream.flush()


def _can_shrink(headers: MutableHeaders) -> bool:
    size = headers.get("content-length", "")
    if not size.isdecimal() or int(size) < LEAST_BYTES or "content-encoding" in headers:
        return False
    return not headers.get("content-type", "").startswith(_PACKED)


def _packed(start: Message, size: int | None) -> Message:
    """The start of a response with a compressed body of `size` bytes; None if that is not known."""
    headers = MutableHeaders(scope=start)
    headers["Content-Encoding"] = "gzip"
    del headers["Content-Length"]
    if size is not None:
        headers["Content-Length"] = str(size)
    if (tag := headers.get("etag", "")) and not tag.startswith("W/"):
        headers["ETag"] = f"W/{tag}"  # equal in meaning, not to the byte
    return start
