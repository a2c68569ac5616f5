"""A local S3 server: moto's server in its own process."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """Run a server that logs to `log`; yields its URL when it accepts connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("w") as stream:
        server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=stream, stderr=stream)
    try:
        while server.poll() is None:
            with socket.socket() as ready:
                if ready.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)
