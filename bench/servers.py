"""Servers under measurement: started as a user starts them, in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from bench.model import FOLDER

LOG = FOLDER / "server.log"
START_S = 120
STOP_S = 60


@dataclass(frozen=True)
class Server:
    """A server that has answered once, on a port of 127.0.0.1."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        """Where models are asked."""
        return f"http://127.0.0.1:{self.port}/invocations"

    def post(self, body: bytes) -> bytes:
        """The answer to one JSON body; OSError (HTTPError) where there is none, or none that is good."""
        asking = Request(self.url, body, {"Content-Type": "application/json"})
        return bytes(urlopen(asking, timeout=60).read())

    def rss_mb(self) -> float:
        """Resident memory of the server's own process, in MB (10^6 bytes)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6

    def children(self, named: str) -> list[int]:
        """Ids of the server's own child processes, whichever thread began them, with `named` in their command line."""
        lists = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        listed = [pid for path in lists for pid in _words(path)]
        return [int(pid) for pid in listed if named in " ".join(_words(Path(f"/proc/{pid}/cmdline")))]

    def metric(self, name: str) -> float | None:
        """The sum of a Prometheus metric over its labels; None where the server has no such metric."""
        try:
            lines = urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30).read().decode().splitlines()
        except HTTPError:
            return None
        found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(found) if found else None


def likewise_serve(bundle: Path, *options: str) -> list[str]:
    """What a user types, with PORT for the port."""
    return [sys.executable, "-m", "likewise.cli", "serve", str(bundle), "-p", "PORT", *options]


def mlflow_serve(uri: str) -> list[str]:
    """The same, of MLflow's own server."""
    return [*(sys.executable, "-m", "mlflow", "models", "serve"), *("-m", uri, "--env-manager", "local", "-p", "PORT")]


@contextmanager
def running(argv: Sequence[str], first: bytes) -> Iterator[Server]:
    """A server that has answered `first`, a JSON body; its whole process group is stopped at the end."""
    FOLDER.mkdir(exist_ok=True)
    port = _free_port()
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment: dict[str, Any] = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(paths),
    }
    words = [str(port) if word == "PORT" else word for word in argv]
    with LOG.open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=FOLDER, start_new_session=True)
    try:
        server = Server(process, port)
        _await_answer(server, first)
        yield server
    finally:
        _stop(process)


def _await_answer(server: Server, first: bytes) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            server.post(first)
            return
        except OSError as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server does not answer ({error}); its log ends:\n{_tail()}") from error
            time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
            process.wait(STOP_S)
            return
        except ProcessLookupError:
            process.wait()
            return
        except subprocess.TimeoutExpired:
            print(f"  {process.args!r} does not stop within {STOP_S} s; killed", flush=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _words(path: Path) -> list[str]:
    """Of a file of /proc; none where its process has ended."""
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except OSError:
        return []


def _tail() -> str:
    return "\n".join(LOG.read_text(errors="replace").splitlines()[-15:])
