"""The service of a local deployment: `python -m likewise.targets.local.child LISTENER CHANNEL LOCK`, inherited handles.

The supervisor says over the channel what to serve; this process says back when it is ready, when it accepts no more, or
why it cannot serve.  When the supervisor is gone, it answers what it has and ends.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from likewise.bundles.open import open_bundle
from likewise.core.errors import BundleTampered, LikewiseError
from likewise.core.options import coerce
from likewise.server.run import run
from likewise.serving import bundle_app
from likewise.targets.local.home import Asked
from likewise.targets.local.options import LocalOptions

FORCED_S = 5.0  # after the drain, for an orphan that does not end


def main(handles: Sequence[str]) -> int:
    """Serve until told to end; the exit code."""
    listener, channel, lock = (int(handle) for handle in handles)
    for handle in (listener, channel, lock):
        os.set_inheritable(handle, False)  # what the model starts holds none of them
    supervisor = socket.socket(fileno=channel)
    lines = supervisor.makefile("rb")
    said = json.loads(lines.readline())
    asked = Asked.from_dict(said["asked"])
    options = coerce(LocalOptions, asked.options)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    drain_s = options.drain_linger_s + options.drain_timeout_s
    threading.Thread(target=_end_with_supervisor, args=(lines, drain_s), name="likewise-orphan", daemon=True).start()
    try:
        _serve(Path(said["bundle"]), asked, options, socket.socket(fileno=listener), supervisor)
    except LikewiseError as error:
        _say(supervisor, {"failed": error.as_dict()})
        return error.exit_code
    return 0


def _serve(path: Path, asked: Asked, options: LocalOptions, listener: socket.socket, supervisor: socket.socket) -> None:
    bundle = open_bundle(path)
    if bundle.digest != asked.model.digest:
        raise BundleTampered(f"{path} holds another bundle than {asked.model.digest}", remedy="deploy the model again")
    run(
        bundle_app(bundle, asked.model, options),
        options,
        listener=listener,
        on_ready=lambda url: _say(supervisor, {"ready": url}),
        on_left=lambda url: _say(supervisor, {"left": url}),
    )


def _say(supervisor: socket.socket, what: Mapping[str, Any]) -> None:
    try:
        supervisor.sendall(json.dumps(what).encode() + b"\n")
    except OSError:  # the supervisor is gone, which the other thread sees too
        logging.getLogger(__name__).warning("the supervisor is gone")


def _end_with_supervisor(lines: BinaryIO, drain_s: float) -> None:
    """Nothing more is ever sent: the end of the lines is the supervisor's."""
    with suppress(OSError):
        lines.readline()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(drain_s + FORCED_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
