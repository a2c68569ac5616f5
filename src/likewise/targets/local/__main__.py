"""Starts the supervisor: `python -m likewise.targets.local FOLDER LISTENER CONTROL LOCK`, inherited handles."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if os.fork():  # nobody's child, before there are threads: its starter need not wait for it
        os._exit(0)
    os.setsid()
    from likewise.targets.local.supervisor import main

    main(sys.argv[1:])
