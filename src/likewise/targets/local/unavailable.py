"""Answers requests with 503 while no service can be started, so that clients and load balancers do not wait in vain.

Imports only the standard library and modules that do the same, because the supervisor imports it.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from likewise.core.errors import NotReady

HEAD_BYTES = 64 * 1024  # of a request; longer ones get no response
REQUEST_S, UNREAD_S = 5.0, 2.0  # how long to wait for a request's headers, and for the rest of its body
RETRY_S = 5


@asynccontextmanager
async def unavailable(listener: socket.socket, name: str) -> AsyncIterator[None]:
    """Respond to every request on `listener`, which stays open afterwards.  name: of the deployment."""
    error = NotReady("the model cannot be loaded at present", remedy=f"find the cause with: likewise status {name}")
    body = json.dumps({"error_code": error.mlflow_code, "message": error.cause, "remedy": error.remedy}).encode()
    head = f"HTTP/1.1 {error.status} Service Unavailable\r\ncontent-type: application/json\r\nretry-after: {RETRY_S}"
    response = f"{head}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_S):
                await reader.readuntil(b"\r\n\r\n")
            writer.write(response)
            writer.write_eof()
            async with asyncio.timeout(UNREAD_S):  # closing before the body is read would reset the connection
                while await reader.read(HEAD_BYTES):
                    pass
        writer.close()

    server = await asyncio.start_server(respond, sock=listener.dup(), limit=HEAD_BYTES)
    try:
        yield
    finally:
        server.close()  # without waiting for the connections, whose requests may be slow
