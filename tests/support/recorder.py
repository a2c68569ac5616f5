"""An HTTP server on this machine that records its requests, as a service or as a proxy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Recorder:
    """url: of the server.  seen: the request lines' targets; those to a proxy are complete URLs, or HOST:PORT."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[str] = []


@contextmanager
def recorder(status: int = 200, body: bytes = b'{"predictions": [1]}') -> Iterator[Recorder]:
    """Run the server, which answers every request with this status and JSON body."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            record.seen.append(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_CONNECT = answer  # noqa: N815  the library's names

        def log_message(self, *arguments: object) -> None:
            """Write no log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        record = Recorder(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield record
        finally:
            server.shutdown()
            thread.join()
