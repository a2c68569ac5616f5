"""A real image registry on this machine, and a TCP relay to it that can drop connections."""

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
    """Run a registry; yields its address, `127.0.0.1:PORT`.  more: additional settings as YAML."""
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

    limits: numbers of bytes sent to the target after which a connection is dropped, each used once, in order.
    passed, back: number of bytes sent to the target, and received from it.
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
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for direction in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._relay, args=direction, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, to_target: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if to_target and self._exceeds_limit(len(data)):
                    break
                if not to_target:
                    self.back += len(data)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset: senders see it
                each.shutdown(socket.SHUT_RDWR)  # wakes the thread of the other way
            each.close()

    def _exceeds_limit(self, size: int) -> bool:
        with self._lock:
            self.passed += size
            if not self.limits:
                return False
            self.limits[0] -= size
            if self.limits[0] > 0:
                return False
            self.limits.pop(0)
            return True
