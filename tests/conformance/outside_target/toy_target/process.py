"""The process of one version: `python -m toy_target.process FOLDER LISTENER LOCK`, two inherited handles."""

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
from toy_target.deployment import Deployment, lend
from toy_target.target import ToyOptions


def main(folder: str, handle: str, lock: str) -> None:
    """Serve what stdin says until told to end."""
    wanted = json.load(sys.stdin)
    if os.fork():  # whoever starts it need not wait for it
        os._exit(0)
    os.setsid()
    model, options = ModelSpec.from_dict(wanted["model"]), coerce(ToyOptions, wanted["options"])
    listener = socket.socket(fileno=int(handle))
    Thread(target=lend, args=(listener,), daemon=True).start()

    def stands(url: str) -> None:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        Deployment(Path(folder).name).write({"wanted": wanted, "url": url, "pid": os.getpid(), "since": since})
        os.close(int(lock))

    app = bundle_app(open_bundle(model.folder), model, options)
    run(app, options, listener=listener, leave_on=HAND_OVER, on_ready=stands)


if __name__ == "__main__":
    main(*sys.argv[1:])
