"""The service of a local deployment: `python -m likewise.targets.local.child CHANNEL`, an inherited handle.

The supervisor gives it the listener and the lock over the channel, and says what to serve; this process says back when
it is ready, when it accepts no more, or why it cannot serve.  When the supervisor is gone, it answers what it has and
ends.
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

from likewise.bundles.open import open_bundle
from likewise.core.errors import BundleTampered, LikewiseError
from likewise.core.option_fields import coerce
from likewise.server.run import run
from likewise.serving import bundle_app
from likewise.targets.listener import HAND_OVER, end_with, take
from likewise.targets.local.deployment_folder import ServiceSpec
from likewise.targets.local.local_options import LocalOptions


def main(channel: int) -> int:
    """Serve until told to end; the exit code."""
    os.set_inheritable(channel, False)  # what the model starts holds none of these
    supervisor = socket.socket(fileno=channel)
    handles = take(supervisor, 2)
    said = json.loads(supervisor.makefile("rb").readline() or "null")
    if said is None:
        return 1  # the supervisor is gone
    asked = ServiceSpec.from_dict(said["asked"])
    options = coerce(LocalOptions, asked.options)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    end_with(supervisor, options.drain_linger_s + options.drain_timeout_s)
    try:
        _serve(Path(said["bundle"]), asked, options, socket.socket(fileno=handles[0]), supervisor)
    except LikewiseError as error:
        _say(supervisor, {"failed": error.as_dict()})
        return error.exit_code
    return 0


def _serve(
    path: Path, asked: ServiceSpec, options: LocalOptions, listener: socket.socket, supervisor: socket.socket
) -> None:
    bundle = open_bundle(path)
    if bundle.digest != asked.model.digest:
        raise BundleTampered(f"{path} holds another bundle than {asked.model.digest}", remedy="deploy the model again")
    run(
        bundle_app(bundle, asked.model, options),
        options,
        listener=listener,
        leave_on=HAND_OVER,
        on_ready=lambda url: _say(supervisor, {"ready": url}),
        on_left=lambda url: _say(supervisor, {"left": url}),
    )


def _say(supervisor: socket.socket, what: Mapping[str, Any]) -> None:
    try:
        supervisor.sendall(json.dumps(what).encode() + b"\n")
    except OSError:  # the supervisor is gone, which the other thread sees too
        logging.getLogger(__name__).warning("the supervisor is gone")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
