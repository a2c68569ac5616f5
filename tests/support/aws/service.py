"""A service without a model that replaces a container, `python service.py`: it starts quickly.

The response to a POST is the name of its bundle and the request body, which it also logs.  The environment variable HOW
sets its behavior: `well`, `exits`, `never ready`, `never responds`.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOW = os.environ.get("HOW", "well")


class Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.respond(503 if HOW == "never ready" else 200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print("received", body.decode(), flush=True)
        if HOW == "never responds":
            threading.Event().wait()
        self.respond(200, json.dumps([os.environ["LIKEWISE_BUNDLE"], body.decode()]).encode())

    def respond(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


if __name__ == "__main__":
    print("starting with HOW =", HOW, flush=True)
    if HOW == "exits":
        sys.exit("the weights do not exist")
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Service).serve_forever()
