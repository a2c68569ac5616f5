"""The container that holds a deployment's port: `python -m likewise.targets.container.door HOST PORT`.

It accepts nothing itself. Each service that connects to the socket in the shared volume is handed the listener, so that
a version takes over from another, and one that has died comes back, while callers wait in the kernel's queue and none
is refused. SIGUSR1 ends the deployment: the listener is let go of, and the services, whose connections end, answer what
they have. Standard library only, so that it takes little memory.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from likewise.targets.listener import HAND_OVER, give

FOLDER = "/run/likewise"
SOCKET = f"{FOLDER}/door"
BACKLOG = 2048
OPEN = "the door is open"
READY = "ready to answer"  # what a service writes when it does


class PortHolder:
    """The listener, and who has it."""

    def __init__(self, host: str, port: int, path: Path = Path(SOCKET)) -> None:
        """OSError where the port is taken."""
        self._listener = socket.create_server((host, port), backlog=BACKLOG)
        path.unlink(missing_ok=True)  # of a door before this one: the volume outlives it
        self._services = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._services.bind(str(path))
        self._services.listen()
        self._held: list[socket.socket] = []
        self._lock = threading.Lock()
        self._open = True

    def hand_out(self) -> None:
        """Give the listener to whoever connects, until the door is closed."""
        with suppress(OSError):
            while True:
                service, _ = self._services.accept()
                with self._lock:  # so that `close` ends whoever was given the listener
                    self._held = [each for each in self._held if not _ended(each)]
                    if not self._open:
                        service.close()
                        return
                    with suppress(OSError):  # it has ended meanwhile
                        give(service, self._listener.fileno())
                        self._held.append(service)

    def close(self) -> None:
        """Let go of the listener and of all services."""
        with self._lock:
            self._open = False
            self._listener.close()
            with suppress(OSError):
                self._services.shutdown(socket.SHUT_RDWR)
            for service in [self._services, *self._held]:
                service.close()


def _ended(service: socket.socket) -> bool:
    """Services say nothing, so what can be read is their end."""
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
    """Until SIGTERM; the exit code."""
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, {*ends, HAND_OVER})
    host, port = arguments
    try:
        door = PortHolder(host, int(port))
    except OSError as error:
        sys.stderr.write(f"{host}:{port}: {error.strerror}\n")
        return 1
    threading.Thread(target=door.hand_out, daemon=True).start()
    sys.stderr.write(f"{OPEN} at {host}:{port}\n")
    while signal.sigwait({*ends, HAND_OVER}) == HAND_OVER:
        door.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
