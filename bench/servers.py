"""Servers to be measured: started like a user starts them, each in its own process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from bench.model import FOLDER
from bench.processes import resident_mb

CHECKOUT = Path(__file__).parents[1]
LOG = FOLDER / "server.log"
START_S = 120
POLL_S = 0.02
STOP_S = 60


class NoResponse(SystemExit):
    """A server exited or did not respond in time; the message has its error and the end of its log."""


@dataclass(frozen=True)
class Server:
    """A server process on a port of 127.0.0.1.

    started_at: start time by `time.perf_counter`; first_s: seconds from then to its first response.
    """

    process: subprocess.Popen[bytes]
    port: int
    path: str
    started_at: float
    first_s: float = float("nan")

    @property
    def url(self) -> str:
        """The URL for predictions."""
        return f"http://127.0.0.1:{self.port}{self.path}"

    def post(self, body: bytes) -> bytes:
        """Send a JSON body and return the response body; raises OSError (HTTPError for an error status)."""
        with self._post(body) as response:
            return bytes(response.read())

    def header(self, body: bytes, name: str) -> str:
        """Send a JSON body and return a header of the response, or an empty string."""
        with self._post(body) as response:
            return str(response.headers.get(name, ""))

    def rss_mb(self) -> float:
        """Resident memory of the server's own process, in MB (10^6 bytes)."""
        return resident_mb(self.process.pid)

    def children(self, named: str) -> list[int]:
        """Ids of the server's child processes (of all its threads) whose command line contains `named`."""
        lists = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        listed = [pid for path in lists for pid in _words(path)]
        return [int(pid) for pid in listed if named in " ".join(_words(Path(f"/proc/{pid}/cmdline")))]

    def metric(self, name: str) -> float | None:
        """The sum of a Prometheus metric over its labels; None if the server has no such metric."""
        try:
            lines = urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30).read().decode().splitlines()
        except HTTPError:
            return None
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(values) if values else None

    def _post(self, body: bytes) -> HTTPResponse:
        response: HTTPResponse = urlopen(Request(self.url, body, {"Content-Type": "application/json"}), timeout=60)
        return response


def likewise_serve(bundle: Path, *options: str) -> list[str]:
    """The command of a user, with PORT for the port."""
    return [sys.executable, "-m", "likewise.cli", "serve", str(bundle), "-p", "PORT", *options]


def mlflow_serve(uri: str) -> list[str]:
    """The same for MLflow's server."""
    return [*(sys.executable, "-m", "mlflow", "models", "serve"), *("-m", uri, "--env-manager", "local", "-p", "PORT")]


@contextmanager
def running(
    argv: Sequence[str], first: bytes, *, path: str = "/invocations", python: str = sys.executable
) -> Iterator[Server]:
    """Run a server and wait until it has responded to `first`, a JSON body sent to `path`; raises NoResponse.

    python: the interpreter whose folder comes first in PATH.
    """
    with started(argv, path=path, python=python) as server:
        _wait_for_response(server, first)
        yield replace(server, first_s=time.perf_counter() - server.started_at)


@contextmanager
def started(argv: Sequence[str], *, path: str = "/invocations", python: str = sys.executable) -> Iterator[Server]:
    """Start a server, with PORT in `argv` for its port; its whole process group is stopped at the end."""
    FOLDER.mkdir(exist_ok=True)
    port = _free_port()
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment: dict[str, Any] = {
        **os.environ,
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(paths),
    }
    words = [re.sub(r"\bPORT$", str(port), word) for word in argv]  # PORT, or NAME=PORT
    started_at = time.perf_counter()
    with LOG.open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=FOLDER, start_new_session=True)
    try:
        yield Server(process, port, path, started_at)
    finally:
        _stop(process)


def _wait_for_response(server: Server, first: bytes) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            server.post(first)
            return
        except OSError as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise NoResponse(
                    f"the server does not respond ({_describe(error)}); its log ends:\n{_tail()}"
                ) from error
            time.sleep(POLL_S)


def _describe(error: OSError) -> str:
    """The error and, for an HTTP error, the last line of its body, which is the exception if it is a traceback."""
    body = error.read().decode(errors="replace").splitlines() if isinstance(error, HTTPError) else []
    return f"{error}: {body[-1][:500]}" if body else str(error)


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
    """The words in a file of /proc; empty if its process has exited."""
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except OSError:
        return []


def complaints() -> list[str]:
    """The last exceptions in the latest server's log, or its last lines if it has no exceptions."""
    lines = LOG.read_text(errors="replace").splitlines()
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Stop)\b", line)]
    return list(dict.fromkeys(named))[-3:] or lines[-3:]


def _tail() -> str:
    return "\n".join(LOG.read_text(errors="replace").splitlines()[-15:])
