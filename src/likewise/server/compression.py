"""Compression of responses, for clients that accept gzip.  Source: RFC 9110, 8.4 and 12.5.3 (Accept-Encoding)."""

from __future__ import annotations

import asyncio
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from starlette.datastructures import MutableHeaders
from starlette.types import Message

if TYPE_CHECKING:
    from starlette.datastructures import Headers

LEAST_BYTES = 1024  # smaller responses are sent as they are
OFF_LOOP_BYTES = 32 * 1024  # larger ones are compressed in a thread; zlib releases the GIL
LEVEL = 1  # three times as fast as the default, for a few percent more bytes of JSON
_GZIP = 16 + zlib.MAX_WBITS
_LEFT_ALONE = (204, 206, 304)  # statuses of responses without a body, or with a part of one
_PACKED = ("image/", "font/", "video/", "audio/", "application/gzip", "application/zip")
_LONGEST = 256  # characters of an Accept-Encoding header; longer ones are not read


def compression_of(start: Message, method: str, request: Headers) -> Compression | None:
    """How the response that starts with this message is compressed, None if it is not.

    Adds Vary if that depends on the request.
    """
    if not _is_large(start) or start["status"] in _LEFT_ALONE:
        return None
    headers = MutableHeaders(scope=start)
    if "content-encoding" in headers or headers.get("content-type", "").startswith(_PACKED):
        return None
    headers.add_vary_header("Accept-Encoding")
    accepted = method != "HEAD" and accepts_gzip(request.get("accept-encoding", ""))
    return Compression(start) if accepted else None


def _is_large(start: Message) -> bool:
    for name, value in start["headers"]:
        if name == b"content-length":
            return int(value) >= LEAST_BYTES
    return False


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


class Compression:
    """Compresses one response."""

    def __init__(self, start: Message) -> None:
        self._start: Message | None = start
        self._stream: Any = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)

    async def compress(self, message: Message) -> tuple[Message, Message | None]:
        """A part of the body, compressed; with the first, the start of the response, which has to be sent before."""
        body, more = message.get("body", b""), message.get("more_body", False)
        packed = (
            await asyncio.to_thread(self._pack, body, more) if len(body) > OFF_LOOP_BYTES else self._pack(body, more)
        )
        start, self._start = self._start, None
        if start is not None:
            start = _packed(start, None if more else len(packed))
        return {"type": "http.response.body", "body": packed, "more_body": more}, start

    def _pack(self, body: bytes, more: bool) -> bytes:
        packed: bytes = self._stream.compress(body)
        return packed if more else packed + self._stream.flush()


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
