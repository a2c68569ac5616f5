"""One end of a request-response connection between two processes."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from multiprocessing.connection import Connection

DISCONNECTED = (EOFError, OSError)  # raised by `request` and `receive` after the other process exited, or after `close`


class Channel:
    """The server's end. Any thread may call `request`; one request at a time is in progress."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._connection: Connection[bytes, bytes] = Connection(os.dup(end.fileno()))
        self._lock = threading.Lock()

    def request(self, message: bytes) -> bytes:
        """Send `message` and return the other process's response; waits for earlier requests to complete."""
        with self._lock:
            self._connection.send_bytes(message)
            return self._connection.recv_bytes()

    def send(self, message: bytes) -> bool:
        """Send a message that has no response. Returns False if a request is in progress; ignores a lost connection."""
        if not self._lock.acquire(blocking=False):
            return False
        with suppress(OSError):
            self._connection.send_bytes(message)
        self._lock.release()
        return True

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message, which was not requested; None if it does not arrive in time."""
        with self._lock:
            return self._connection.recv_bytes() if self._connection.poll(timeout_s) else None

    def close(self) -> None:
        """Close the connection, and unblock threads waiting on it. Call this after the other process has exited.

        A process that the worker forked may keep the other end open, so the worker's exit alone would unblock nobody.
        """
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._connection.close()
            self._socket.close()
