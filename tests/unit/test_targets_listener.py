"""The listener that one process keeps and others accept on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from likewise.targets.listener import give, take

SERVICE = """
import signal, socket, sys, time
from likewise.targets import listener
listener.FORCED_S = 0.2
signal.signal(signal.SIGTERM, {handler})
gone = listener.end_with(socket.socket(fileno=int(sys.argv[1])), 0.0)
print("up", flush=True)
while True:
    time.sleep(60)
"""


def test_a_service_accepts_on_the_listener_that_it_is_given() -> None:
    keeper, service = socket.socketpair()
    with keeper, service, socket.create_server(("127.0.0.1", 0)) as kept:
        give(keeper, kept.fileno(), keeper.fileno())
        handles = take(service, 2)
        assert not any(os.get_inheritable(handle) for handle in handles)
        os.close(handles[1])
        with socket.socket(fileno=handles[0]) as listener, socket.create_connection(kept.getsockname()) as caller:
            kept.close()  # whoever called waits for the others
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"x")
            assert caller.recv(1) == b"x"


def test_nothing_is_given_by_one_that_has_gone_nor_taken_by_one_that_has_ended() -> None:
    keeper, service = socket.socketpair()
    keeper.close()
    assert take(service) == []
    other, ended = socket.socketpair()
    ended.close()
    with service, other, pytest.raises(OSError, match="Broken pipe"):
        give(other, other.fileno())


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        ("lambda *_: sys.exit(3 + gone.is_set())", 4),
        ("signal.SIG_IGN", 1),  # ended, as it does not end by itself
        ("signal.SIG_DFL", -signal.SIGTERM),
    ],
)
def test_a_service_ends_with_its_keeper(handler: str, code: int) -> None:
    keeper, service = socket.socketpair()
    command = [sys.executable, "-c", SERVICE.format(handler=handler), str(service.fileno())]
    with subprocess.Popen(command, pass_fds=(service.fileno(),), stdout=subprocess.PIPE, text=True) as process:
        service.close()
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert process.poll() is None
        keeper.close()
        assert process.wait(60) == code
