"""A real registry on this machine, and a connection to it that can be cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.machine import need_program
from tests.support.processes import free_port, running

SETTINGS = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: 127.0.0.1:{port}}}
log: {{level: error, accesslog: {{disabled: true}}}}
{more}
"""


@contextlib.contextmanager
def registry(folder: Path, more: str = "") -> Iterator[str]:
    """Its address, `127.0.0.1:PORT`; more: of its settings."""
    program, port = need_program("docker-registry", "docker-registry"), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "config.yml"
    settings.write_text(SETTINGS.format(root=folder / "data", port=port, more=more))
    with running([program, "serve", settings], folder / "log", pipe=False) as process:
        process.wait_for_response(f"http://127.0.0.1:{port}/", 200)
        yield f"127.0.0.1:{port}"
        process.stop()


class Wire:
    """A TCP relay to `target` (HOST:PORT) at `address`.

    limits: the first connection after so many bytes towards the target is dropped, and so on with the next number.
    passed, back: bytes that went towards the target, and back.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.limits: list[int] = []
        self.passed = 0
        self.back = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(self._target)
                for way in ((ours, theirs, True), (theirs, ours, False)):
                    threading.Thread(target=self._relay, args=way, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, forth: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if forth and self._cut(len(data)):
                    break
                if not forth:
                    self.back += len(data)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset: senders see it
                each.shutdown(socket.SHUT_RDWR)  # wakes the thread of the other way
            each.close()

    def _cut(self, size: int) -> bool:
        with self._lock:
            self.passed += size
            if not self.limits:
                return False
            self.limits[0] -= size
            if self.limits[0] > 0:
                return False
            self.limits.pop(0)
            return True
