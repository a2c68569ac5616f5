"""`python -m likewise.container serve`: the entry point of an image."""

import os
import signal
import sys

# PID 1 in a container ignores signals without a handler; exiting at once is safe, since no connection is accepted yet.
for _number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, lambda *_: os._exit(0))

from likewise.container.first import leave_first_process  # noqa: E402

leave_first_process()

from likewise.container.serve import main  # noqa: E402
from likewise.core.stdout import reserve_stdout  # noqa: E402

reserve_stdout()  # what a model prints joins the log
sys.exit(main(sys.argv[1:]))
