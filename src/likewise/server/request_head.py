"""Parsing of request heads (request line and headers) with limits; rejects what uvicorn's parser wrongly accepts.

Sources: RFC 9110 (7.8 Upgrade), RFC 9112 (2.3 versions, 6.1 transfer codings, 7.1.2 trailers), RFC 6585 (5, 431).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from likewise.core.errors import BadRequest

MAX_HEADERS = 128
SLICE_BYTES = 2048  # parsed at a time, which bounds how much is parsed before the limits are checked
_REQUEST_LINE = len("  HTTP/1.1\r\n")
_FIELD = len(": \r\n")


class HeadRefused(Exception):
    """Raised to stop the parsing of a request; contains the status and the error of the response."""

    def __init__(self, cause: str, *, remedy: str, status: int = BadRequest.status) -> None:
        super().__init__(cause)
        self.status = status
        self.error = BadRequest(cause, remedy=remedy)


def malformed(cause: str) -> HeadRefused:
    """A 400 for data that is not valid HTTP/1.1."""
    return HeadRefused(f"not a valid HTTP/1.1 request: {cause}", remedy="send unencrypted HTTP/1.1 with any library")


def _reason(error: httptools.HttpParserError) -> HeadRefused:
    raised = error.__context__  # the exception of a callback
    if isinstance(raised, HeadRefused):
        return raised
    return malformed("invalid request target" if raised else str(error))


class LimitedHead(HttpToolsProtocol, ABC):
    """The parser of one connection; heads over the limits and invalid framing lead to `refuse`."""

    header_bytes: int  # limit for the request line and headers together

    in_head = True  # waiting for a request's headers, or parsing them
    in_body = False
    started = False  # whether the connection's first byte has arrived
    rejected = False  # an error response is pending or sent; further data is discarded
    _progress = False  # whether the last slice yielded anything besides headers
    _silent_bytes = 0  # parsed without progress, except the first and last slice: size of headers and trailers

    @abstractmethod
    def refuse(self, refused: HeadRefused) -> None:
        """Stop parsing, send the error response, and close the connection."""

    def parse(self, data: bytes) -> None:
        """Parse the next data, at most SLICE_BYTES; calls `refuse` if it is malformed or exceeds a limit."""
        self._progress = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offered:
            self._decline_upgrade()
            if not self.rejected:
                self.parse(data[offered.args[0] :])
            return
        except httptools.HttpParserError as error:
            self.refuse(_reason(error))
            return
        self._silent_bytes = 0 if self._progress else self._silent_bytes + len(data)
        if self._silent_bytes > self.header_bytes:
            self.refuse(self._too_large())

    def _decline_upgrade(self) -> None:
        """Parse the request again without its Upgrade header, because llhttp would drop its body."""
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parse(b"".join([*head, b"\r\n"]))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.in_head, self.started, self.in_body = True, True, False
        self._progress = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_body:
            return  # a trailer must not be treated as a header
        if len(self.headers) >= MAX_HEADERS:
            raise HeadRefused(f"more than {MAX_HEADERS} headers", remedy="send fewer headers", status=431)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._progress = True
        if self._silent_bytes + 2 * SLICE_BYTES > self.header_bytes and self._head_bytes() > self.header_bytes:
            raise self._too_large()
        version, method = self.parser.get_http_version(), self.parser.get_method()
        if version not in ("1.0", "1.1"):
            raise malformed(f"HTTP/{version} is not supported")
        if method == b"CONNECT":
            raise malformed("this server is not a proxy and does not support CONNECT")
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            raise malformed(f"the transfer coding {b', '.join(codings).decode('latin-1')!r} is not supported")
        if self.parser.should_upgrade():
            return  # `parse` declines the upgrade and parses it again
        super().on_headers_complete()
        self.in_head, self.in_body = False, True

    def on_body(self, body: bytes) -> None:
        self._progress = True
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """Called by the parser after a chunk's size."""
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
            f"the request line and headers exceed this server's limit of {self.header_bytes:,} bytes",
            remedy="shorten the URL and headers; send the rows in the body",
            status=431,
        )
