"""The heads of requests, within limits: what uvicorn's parser takes, and what it must not.

Sources: RFC 9110 (7.8 Upgrade), RFC 9112 (2.3 versions, 6.1 transfer codings, 7.1.2 trailers), RFC 6585 (5, 431).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from likewise.core.errors import BadRequest

MAX_HEADERS = 128
SLICE_BYTES = 2048  # parsed at a time: no more than so many bytes become requests before somebody looks
_REQUEST_LINE = len("  HTTP/1.1\r\n")
_FIELD = len(": \r\n")


class HeadRefused(Exception):
    """What ends the parsing of a request: the status and the error of its answer."""

    def __init__(self, cause: str, *, remedy: str, status: int = BadRequest.status) -> None:
        super().__init__(cause)
        self.status = status
        self.error = BadRequest(cause, remedy=remedy)


def malformed(cause: str) -> HeadRefused:
    """A 400 for what is not HTTP/1.1."""
    return HeadRefused(
        f"this is no HTTP/1.1 request: {cause}", remedy="send HTTP/1.1, unencrypted, with any HTTP library"
    )


def _reason(error: httptools.HttpParserError) -> HeadRefused:
    raised = error.__context__  # by a callback
    if isinstance(raised, HeadRefused):
        return raised
    return malformed("its address cannot be read" if raised else str(error))


class LimitedHead(HttpToolsProtocol, ABC):
    """The parser of one connection: many small requests, long heads and odd framing end in `refuse`."""

    header_bytes: int  # of the request line and headers together, at most

    in_head = True  # waiting for a request's headers, or in them
    in_body = False
    begun = False  # whether the connection's first byte has come
    ended = False  # refused: what still comes is thrown away
    _progress = False  # whether the parser has handed out more than headers
    _silent_bytes = 0  # parsed since then, but for its first and last slice: what headers and trailers collect

    @abstractmethod
    def refuse(self, refused: HeadRefused) -> None:
        """Take nothing more; answer, and close."""

    def parse(self, data: bytes) -> None:
        """Parse what came next, SLICE_BYTES at most; what is wrong with it, or too much, goes to `refuse`."""
        self._progress = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offered:
            self._decline_upgrade()
            if not self.ended:
                self.parse(data[offered.args[0] :])
            return
        except httptools.HttpParserError as error:
            self.refuse(_reason(error))
            return
        self._silent_bytes = 0 if self._progress else self._silent_bytes + len(data)
        if self._silent_bytes > self.header_bytes:
            self.refuse(self._too_large())

    def _decline_upgrade(self) -> None:
        """Read a request that offers another protocol as if it did not: llhttp would drop its body."""
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parse(b"".join([*head, b"\r\n"]))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.in_head, self.begun, self.in_body = True, True, False
        self._progress = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_body:
            return  # a trailer must not pass for a header
        if len(self.headers) >= MAX_HEADERS:
            raise HeadRefused(f"the request has more than {MAX_HEADERS} headers", remedy="send fewer", status=431)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._progress = True
        if self._silent_bytes + 2 * SLICE_BYTES > self.header_bytes and self._head_bytes() > self.header_bytes:
            raise self._too_large()
        version, method = self.parser.get_http_version(), self.parser.get_method()
        if version not in ("1.0", "1.1"):
            raise malformed(f"HTTP/{version} is not spoken here")
        if method == b"CONNECT":
            raise malformed("this server is no proxy, and takes no CONNECT")
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            raise malformed(f"the transfer coding {b', '.join(codings).decode('latin-1')!r} is not read here")
        if self.parser.should_upgrade():
            return  # it comes again without the offer
        super().on_headers_complete()
        self.in_head, self.in_body = False, True

    def on_body(self, body: bytes) -> None:
        self._progress = True
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """The parser has read a chunk's size."""
        self._progress = True

    def on_message_complete(self) -> None:
        self._progress = True
        if self.parser.should_upgrade():
            return
        self.in_body = False
        super().on_message_complete()

    def _head_bytes(self) -> int:
        fields = sum(len(name) + len(value) + _FIELD for name, value in self.headers)
        return _REQUEST_LINE + len(self.parser.get_method()) + len(self.url) + fields

    def _too_large(self) -> HeadRefused:
        return HeadRefused(
            f"the request line and headers have more than the {self.header_bytes:,} bytes that this server takes",
            remedy="send less in the address and headers; the rows belong in the body",
            status=431,
        )
