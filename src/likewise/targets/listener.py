"""Shares one listening socket among services that replace each other, so that no connection is refused.

The process that owns the listener does not accept connections; it passes the listener to each service over a Unix
socket. A service accepts connections after its model is warm; on the signal HAND_OVER it stops accepting, serves
its open connections and leaves the listener to the others. While no service accepts, clients wait in the kernel's
backlog. When the Unix connection closes, the service knows that the owner has exited.

Standard library only, to keep the owner's memory small.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress

HAND_OVER = signal.SIGUSR1
FORCED_S = 5.0  # a service that has not exited this long after its drain time is killed


def send_handles(service: socket.socket, *handles: int) -> None:
    """Send the service these file descriptors, the listener first.  Raises OSError if the service has exited."""
    socket.send_fds(service, [b"."], list(handles))


def receive_handles(owner: socket.socket, count: int = 1) -> list[int]:
    """Receive file descriptors from the owner, made non-inheritable; empty if the owner has exited."""
    handles = socket.recv_fds(owner, 1, count)[1]
    for handle in handles:
        os.set_inheritable(handle, False)
    return handles


def exit_with_owner(owner: socket.socket, drain_s: float) -> threading.Event:
    """Drain and exit this process when the owner exits, which also sets the returned event.

    drain_s: seconds that the drain may take before the process is ended by force.
    """
    gone = threading.Event()

    def watch() -> None:
        with suppress(OSError):
            owner.recv(1)  # the owner sends nothing more, so this returns when it exits
        gone.set()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(drain_s + FORCED_S)
        os._exit(1)

    threading.Thread(target=watch, name="likewise-owner", daemon=True).start()
    return gone
