"""`python -m likewise.container serve`: the entry point of an image."""

import os
import signal
import sys

# The first process of a container ignores the signals that it does not handle, and nothing is accepted yet.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

from likewise.container.serve import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
