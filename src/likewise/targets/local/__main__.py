"""Starts the supervisor: `python -m likewise.targets.local FOLDER LISTENER CONTROL LOCK`.

LISTENER, CONTROL and LOCK are inherited file descriptors.
"""

from __future__ import annotations

import os
import sys

from likewise.core.cores import limit_threads

if __name__ == "__main__":
    if os.fork():  # detach from the parent, before threads are started: the parent need not wait for it
        os._exit(0)
    os.setsid()
    limit_threads()  # before the services, which inherit the environment, load libraries
    from likewise.targets.local.supervisor import main

    main(sys.argv[1:])
