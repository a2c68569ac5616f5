"""The process of a version's container: `python -m likewise.targets.container.inside`.

It gets the listener from the listener container, and accepts connections when its model is warm. On SIGUSR1, the stop
signal of its container, it stops accepting, completes its open connections and exits. If the listener container exits,
it drains and exits with code 1, so that the engine restarts it.
"""

import os
import signal

# Process 1 of a container ignores signals without a handler; exiting is safe because nothing is accepted yet.
for _number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(_number, lambda *_: os._exit(0))

from likewise.container.first import leave_first_process  # noqa: E402

if __name__ == "__main__":
    leave_first_process()

import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from contextlib import suppress  # noqa: E402

from likewise.container.serve import exit_code_of, log_line, warn  # noqa: E402
from likewise.core.ending import end_in_time  # noqa: E402
from likewise.core.errors import TargetUnavailable  # noqa: E402
from likewise.targets.container.door import READY, SOCKET  # noqa: E402
from likewise.targets.listener import HAND_OVER, exit_with_owner, receive_handles  # noqa: E402

WAIT_S = 60.0  # for the listener container, which may be starting as well
POLL_S = 0.05


def serve() -> int:
    """Serve until a signal to stop; returns the exit code."""
    from likewise.container.app import container_app
    from likewise.container.models import find_model
    from likewise.container.settings import read_options
    from likewise.server.run import run

    options = read_options(os.environ, warn)
    end_in_time(options.end_s)
    owner, listener = connect(SOCKET, WAIT_S)
    owner_exited = exit_with_owner(owner, options.drain_linger_s + options.drain_timeout_s)
    app = container_app(find_model(options, log_line), options)

    def ready(_: str) -> None:
        log_line(f"{READY}, engine {app.state.service.engine_label}")

    run(app, options, listener=listener, leave_on=HAND_OVER, on_ready=ready)
    return 1 if owner_exited.is_set() else 0


def connect(path: str, wait_s: float) -> tuple[socket.socket, socket.socket]:
    """Connect to the listener container at `path`; returns the connection and the listener.

    Raises TargetUnavailable after `wait_s` seconds.
    """
    deadline = time.monotonic() + wait_s
    while True:
        owner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(OSError):
            owner.connect(path)
            if handles := receive_handles(owner):
                return owner, socket.socket(fileno=handles[0])
        owner.close()
        if time.monotonic() > deadline:
            raise TargetUnavailable(
                f"no listener container responds at {path}", remedy="run `likewise update NAME` to restart it"
            )
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(exit_code_of(serve))
