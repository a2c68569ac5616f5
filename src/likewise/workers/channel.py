"""One end of a connection between two processes: a question, then its answer."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from multiprocessing.connection import Connection

GONE = (EOFError, OSError)  # what `ask` and `hear` raise once the other process has ended, or `cut` was called


class Channel:
    """The server's end. Any thread may `ask`: one question at a time is on its way."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._connection: Connection[bytes, bytes] = Connection(os.dup(end.fileno()))
        self._lock = threading.Lock()

    def ask(self, message: bytes) -> bytes:
        """The other process's answer to `message`; waits for those who asked before."""
        with self._lock:
            self._connection.send_bytes(message)
            return self._connection.recv_bytes()

    def say(self, message: bytes) -> bool:
        """Send what has no answer; False where a question is under way. Says nothing of who is there to hear it."""
        if not self._lock.acquire(blocking=False):
            return False
        with suppress(OSError):
            self._connection.send_bytes(message)
        self._lock.release()
        return True

    def hear(self, timeout_s: float) -> bytes | None:
        """What the other process says of itself; None where that takes longer."""
        with self._lock:
            return self._connection.recv_bytes() if self._connection.poll(timeout_s) else None

    def cut(self) -> None:
        """End it, for whoever waits in it too; to be called when the other process is gone.

        A process that the worker forked may hold the other end open: its mere end would wake nobody.
        """
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._connection.close()
            self._socket.close()
