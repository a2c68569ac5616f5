"""The process of one version: `python -m toy_target.process FOLDER LISTENER LOCK`.

LISTENER and LOCK are inherited file descriptors; stdin has the spec as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

from likewise.bundles.open import open_bundle
from likewise.core.option_fields import coerce
from likewise.core.spec import ModelSpec
from likewise.server.run import run
from likewise.serving import bundle_app
from likewise.targets.listener import HAND_OVER
from toy_target.deployment import Deployment, share
from toy_target.target import ToyOptions


def main(folder: str, handle: str, lock: str) -> None:
    """Serve the spec until a signal to stop."""
    spec = json.load(sys.stdin)
    if os.fork():  # detach, so that the parent need not wait for it
        os._exit(0)
    os.setsid()
    model, options = ModelSpec.from_dict(spec["model"]), coerce(ToyOptions, spec["options"])
    listener = socket.socket(fileno=int(handle))
    Thread(target=share, args=(listener,), daemon=True).start()

    def record(url: str) -> None:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        Deployment(Path(folder).name).write({"spec": spec, "url": url, "pid": os.getpid(), "since": since})
        os.close(int(lock))

    app = bundle_app(open_bundle(model.folder), model, options)
    run(app, options, listener=listener, leave_on=HAND_OVER, on_ready=record)


if __name__ == "__main__":
    main(*sys.argv[1:])
