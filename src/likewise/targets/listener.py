"""One listening socket for services that take over from each other: no caller is refused meanwhile.

Who keeps the listener accepts nothing itself, and gives it to each service over a Unix connection. A service accepts
once its model is warm; HAND_OVER makes it leave the listener to the others and answer who is connected. While nobody
accepts, callers wait in the kernel's queue. The end of the connection tells a service that the keeper has gone.

Standard library only, for keepers that take little memory.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress

HAND_OVER = signal.SIGUSR1
FORCED_S = 5.0  # over its drain, for a service that does not end


def give(service: socket.socket, *handles: int) -> None:
    """Give the service these handles, the listener first; OSError where it has ended."""
    socket.send_fds(service, [b"."], list(handles))


def take(keeper: socket.socket, count: int = 1) -> list[int]:
    """The handles that the keeper gives, which no process of this one's inherits; none where it has gone."""
    handles = socket.recv_fds(keeper, 1, count)[1]
    for handle in handles:
        os.set_inheritable(handle, False)
    return handles


def end_with(keeper: socket.socket, drain_s: float) -> threading.Event:
    """Drain and end this process when the keeper has gone, which sets the event; drain_s: seconds that it may take."""
    gone = threading.Event()

    def watch() -> None:
        with suppress(OSError):
            keeper.recv(1)  # it says nothing more
        gone.set()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(drain_s + FORCED_S)
        os._exit(1)

    threading.Thread(target=watch, name="likewise-keeper", daemon=True).start()
    return gone
