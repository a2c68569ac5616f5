"""A listener that one process owns and others accept connections on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from likewise.targets.listener import receive_handles, send_handles

SERVICE = """
import signal, socket, sys, time
from likewise.targets import listener
listener.FORCED_S = 0.2
signal.signal(signal.SIGTERM, {handler})
gone = listener.exit_with_owner(socket.socket(fileno=int(sys.argv[1])), 0.0)
print("up", flush=True)
while True:
    time.sleep(60)
"""


def test_service_accepts_connections_on_the_received_listener() -> None:
    owner, service = socket.socketpair()
    with owner, service, socket.create_server(("127.0.0.1", 0)) as original:
        send_handles(owner, original.fileno(), owner.fileno())
        handles = receive_handles(service, 2)
        assert not any(os.get_inheritable(handle) for handle in handles)
        os.close(handles[1])
        with socket.socket(fileno=handles[0]) as listener, socket.create_connection(original.getsockname()) as client:
            original.close()  # the client waits in the backlog of the shared listener
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"x")
            assert client.recv(1) == b"x"


def test_receive_is_empty_without_owner_and_send_fails_without_service() -> None:
    owner, service = socket.socketpair()
    owner.close()
    assert receive_handles(service) == []
    other_owner, exited_service = socket.socketpair()
    exited_service.close()
    with service, other_owner, pytest.raises(OSError, match="Broken pipe"):
        send_handles(other_owner, other_owner.fileno())


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        ("lambda *_: sys.exit(3 + gone.is_set())", 4),
        ("signal.SIG_IGN", 1),  # ended by force, because it ignores the signal
        ("signal.SIG_DFL", -signal.SIGTERM),
    ],
)
def test_service_exits_with_its_owner(handler: str, code: int) -> None:
    owner, service = socket.socketpair()
    command = [sys.executable, "-c", SERVICE.format(handler=handler), str(service.fileno())]
    with subprocess.Popen(command, pass_fds=(service.fileno(),), stdout=subprocess.PIPE, text=True) as process:
        service.close()
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert process.poll() is None
        owner.close()
        assert process.wait(60) == code
