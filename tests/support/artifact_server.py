"""An artifact server that needs a password, for models at `http://user:password@…`."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


class _Artifacts(BaseHTTPRequestHandler):
    """The files of each login's folder, as MLflow's server lists and sends artifacts."""

    def __init__(self, roots: Mapping[str, Path], *arguments: Any) -> None:
        self._roots = {f"Basic {base64.b64encode(login.encode()).decode()}": root for login, root in roots.items()}
        super().__init__(*arguments)

    def do_GET(self) -> None:
        root = self._roots.get(self.headers["Authorization"])
        if root is None:
            self.send(401, b"log in first")
            return
        url = urlsplit(self.path)
        path = root / unquote(url.path.removeprefix(ARTIFACTS)).strip("/")
        if url.path == ARTIFACTS:
            folder = root / parse_qs(url.query).get("path", [""])[0]
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            listed = [{"path": p.name, "is_dir": p.is_dir(), "file_size": p.stat().st_size} for p in files]
            self.send(200, json.dumps({"files": listed}).encode())
        elif path.is_file():
            self.send(200, path.read_bytes())
        else:
            self.send(404, b"there is no such file")

    def send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


@contextmanager
def artifact_server(roots: Mapping[str, Path]) -> Iterator[str]:
    """Serve a folder for each login (`user:password`); yields host, port and path of the artifacts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Artifacts, roots))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}{ARTIFACTS}"
    finally:
        server.shutdown()
        server.server_close()
