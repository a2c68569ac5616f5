"""A version's process in its container: `python -m likewise.targets.container.inside`.

It asks the door for the listener, and accepts once its model is warm. SIGUSR1, which is how its container is stopped,
leaves the listener to the others and answers who is connected. When the door is gone it drains, and ends with 1, so
that the engine starts it again.
"""

import os
import signal

# The first process of a container ignores the signals that it does not handle, and nothing is accepted yet.
for _number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(_number, lambda *_: os._exit(0))

import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from contextlib import suppress  # noqa: E402

from likewise.container.serve import exit_code_of, log_line  # noqa: E402
from likewise.core.errors import TargetUnavailable  # noqa: E402
from likewise.targets.container.door import READY, SOCKET  # noqa: E402
from likewise.targets.listener import HAND_OVER, end_with, take  # noqa: E402

WAIT_S = 60.0  # for the door, which may be starting as well
LOOK_S = 0.05


def serve() -> int:
    """Until told to end; the exit code."""
    from likewise.container.app import container_app
    from likewise.container.models import find_model
    from likewise.container.settings import read_options
    from likewise.server.run import run

    options = read_options(os.environ)
    door, listener = connect(SOCKET, WAIT_S)
    gone = end_with(door, options.drain_linger_s + options.drain_timeout_s)
    app = container_app(find_model(options, log_line), options)

    def ready(_: str) -> None:
        log_line(f"{READY}, engine {app.state.service.engine_label}")

    run(app, options, listener=listener, leave_on=HAND_OVER, on_ready=ready)
    return 1 if gone.is_set() else 0


def connect(path: str, wait_s: float) -> tuple[socket.socket, socket.socket]:
    """The connection to the door, and the listener that it gives; TargetUnavailable."""
    until = time.monotonic() + wait_s
    while True:
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(OSError):
            door.connect(path)
            if handles := take(door):
                return door, socket.socket(fileno=handles[0])
        door.close()
        if time.monotonic() > until:
            raise TargetUnavailable(f"no door at {path}", remedy="likewise update NAME starts it again")
        time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(exit_code_of(serve))
