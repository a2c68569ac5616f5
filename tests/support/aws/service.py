"""A service without a model in the place of a container, `python service.py`: it starts at once.

It answers a POST with the name of its bundle and the body.  The environment variable HOW sets how it goes: `well`,
`exits`, `is never ready`, `never answers`.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOW = os.environ.get("HOW", "well")


class Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(503 if HOW == "is never ready" else 200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if HOW == "never answers":
            threading.Event().wait()
        self.answer(200, json.dumps([os.environ["LIKEWISE_BUNDLE"], body.decode()]).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no line a request."""


if __name__ == "__main__":
    print("starting; this one", HOW, flush=True)
    if HOW == "exits":
        sys.exit("there are no such weights")
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Service).serve_forever()
