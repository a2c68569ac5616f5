"""The process of the listener container: `python -m likewise.targets.container.door HOST PORT`.

It owns the deployment's port but accepts no connections itself. It passes the listener to each service that connects to
the socket in the shared volume, so that a version can replace another or be restarted while clients wait in the
kernel's backlog and none is refused. SIGUSR1 stops the deployment: the listener is closed, and so are the connections
to the services, which then drain. Standard library only, to keep its memory small.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from likewise.targets.listener import HAND_OVER, send_handles

FOLDER = "/run/likewise"
SOCKET = f"{FOLDER}/door"
BACKLOG = 2048
# Log messages by which the target detects readiness, also in containers that earlier versions have started.
OPEN = "the door is open"  # of the listener container
READY = "ready to answer"  # of a service


class PortHolder:
    """The listener, and the services that share it."""

    def __init__(self, host: str, port: int, path: Path = Path(SOCKET)) -> None:
        """Listen on the port and on the Unix socket `path`.  Raises OSError if the port is in use."""
        self._listener = socket.create_server((host, port), backlog=BACKLOG)
        path.unlink(missing_ok=True)  # left by a previous process: the volume outlives it
        self._services = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._services.bind(str(path))
        self._services.listen()
        self._connected: list[socket.socket] = []
        self._lock = threading.Lock()
        self._open = True

    def hand_out(self) -> None:
        """Pass the listener to every service that connects, until `close`."""
        with suppress(OSError):
            while True:
                service, _ = self._services.accept()
                with self._lock:  # so that `close` reaches every service that received the listener
                    self._connected = [each for each in self._connected if not _disconnected(each)]
                    if not self._open:
                        service.close()
                        return
                    with suppress(OSError):  # the service may have exited
                        send_handles(service, self._listener.fileno())
                        self._connected.append(service)

    def close(self) -> None:
        """Close the listener and the connections to all services."""
        with self._lock:
            self._open = False
            self._listener.close()
            with suppress(OSError):
                self._services.shutdown(socket.SHUT_RDWR)
            for service in [self._services, *self._connected]:
                service.close()


def _disconnected(service: socket.socket) -> bool:
    """Whether the service has closed its connection; services send nothing, so a read only returns at the end."""
    try:
        data = service.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        data = b""
    if not data:
        service.close()
    return not data


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM; returns the exit code."""
    stop_signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, {*stop_signals, HAND_OVER})
    host, port = arguments
    try:
        holder = PortHolder(host, int(port))
    except OSError as error:
        sys.stderr.write(f"{host}:{port}: {error.strerror}\n")
        return 1
    threading.Thread(target=holder.hand_out, daemon=True).start()
    sys.stderr.write(f"{OPEN} at {host}:{port}\n")
    while signal.sigwait({*stop_signals, HAND_OVER}) == HAND_OVER:
        holder.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
