"""The service process of a local deployment: `python -m likewise.targets.local.child CHANNEL`.

CHANNEL is an inherited socket to the supervisor, which sends the listener, the lock and the spec to serve.  This
process reports when it is ready, when it has stopped accepting connections, or why it cannot serve.  If the supervisor
exits, it drains and exits.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likewise.bundles.open import open_exactly
from likewise.core.ending import end_in_time
from likewise.core.errors import LikewiseError
from likewise.core.json_log import log_to_stderr
from likewise.core.option_fields import coerce
from likewise.server.run import run
from likewise.serving import bundle_app
from likewise.targets.listener import HAND_OVER, exit_with_owner, receive_handles
from likewise.targets.local.deployment_folder import ServiceSpec
from likewise.targets.local.local_options import LocalOptions


def main(channel: int) -> int:
    """Serve until a signal to stop; returns the exit code."""
    os.set_inheritable(channel, False)  # processes that the model starts must not inherit it
    supervisor = socket.socket(fileno=channel)
    handles = receive_handles(supervisor, 2)
    message = json.loads(supervisor.makefile("rb").readline() or "null")
    if message is None:
        return 1  # the supervisor has exited
    spec = ServiceSpec.from_dict(message["asked"])
    options = coerce(LocalOptions, spec.options)
    log_to_stderr(logging.WARNING, as_json=options.log_format == "json")
    end_in_time(options.end_s)
    exit_with_owner(supervisor, options.drain_linger_s + options.drain_timeout_s)
    try:
        _serve(Path(message["bundle"]), spec, options, socket.socket(fileno=handles[0]), supervisor)
    except LikewiseError as error:
        _report(supervisor, {"failed": error.as_dict()})
        return error.exit_code
    return 0


def _serve(
    path: Path, spec: ServiceSpec, options: LocalOptions, listener: socket.socket, supervisor: socket.socket
) -> None:
    run(
        bundle_app(open_exactly(spec.model, path), spec.model, options),
        options,
        listener=listener,
        leave_on=HAND_OVER,
        on_ready=lambda url: _report(supervisor, {"ready": url}),
        on_left=lambda url: _report(supervisor, {"left": url}),
    )


def _report(supervisor: socket.socket, message: Mapping[str, Any]) -> None:
    try:
        supervisor.sendall(json.dumps(message).encode() + b"\n")
    except OSError:  # the thread of `exit_with_owner` detects this as well
        logging.getLogger(__name__).warning("the supervisor has exited")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
