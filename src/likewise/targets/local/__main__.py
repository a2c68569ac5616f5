"""Starts the supervisor: `python -m likewise.targets.local FOLDER LISTENER CONTROL LOCK`.

LISTENER, CONTROL and LOCK are inherited file descriptors.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if os.fork():  # detach from the parent, before threads are started: the parent need not wait for it
        os._exit(0)
    os.setsid()
    from likewise.targets.local.supervisor import main

    main(sys.argv[1:])
