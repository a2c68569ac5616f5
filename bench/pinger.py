"""Sends requests to /ping, each on a new connection, and prints their response times: `python -m bench.pinger PORT`.

It is a process, so that the load that another process generates does not delay it.
"""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

from bench.servers import CHECKOUT

EVERY_S = 0.02


@contextmanager
def pinging(port: int) -> Iterator[list[float]]:
    """Run this module meanwhile; at the end of the block, the list has the response times in seconds."""
    waits: list[float] = []
    command = [sys.executable, "-m", "bench.pinger", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first response
        try:
            yield waits
        finally:
            printed, _ = process.communicate("")  # the end of its input stops it
            waits += map(float, printed.split())


def main() -> None:
    """Ping until the input ends."""
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        started = time.perf_counter()
        connection = HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
        connection.request("GET", "/ping")
        connection.getresponse().read()
        connection.close()
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
