"""MLflow's own tracking server, in its own process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import free_port, running


@contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """`mlflow server` on a free port, stopped with all its workers."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "a"),
    ]
    with running(command, folder / "server.log", cwd=folder, group=True, pipe=False) as server:
        server.wait_for_response(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
