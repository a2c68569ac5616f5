"""Requests a second and latency: `likewise serve` beside `mlflow models serve`, alternating, medians of the rounds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from bench.model import FOLDER, Subject, texts

Figures = dict[str, float]


def measure(subject: Subject, *, seconds: int, connections: int, rounds: int) -> dict[str, Figures]:
    """Figures by server; each round starts each server anew and warms it for five seconds."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")
    bodies = FOLDER / "bodies.txt"
    lines = (json.dumps({"dataframe_split": {"columns": ["text"], "data": [[t]]}}) for t in texts(2500))
    bodies.write_text("".join(line + "\n" for line in lines))
    taken: dict[str, list[Figures]] = {}
    for _ in range(rounds):
        for name, argv in commands(subject).items():
            with running(argv, bodies) as url:
                load(url, bodies, 5, connections)
                figures = load(url, bodies, seconds, connections)
            print(f"  {name}: {figures}", flush=True)
            taken.setdefault(name, []).append(figures)
    return {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in taken.items()}


def commands(subject: Subject) -> dict[str, list[str]]:
    """What a user types, with PORT for the port."""
    return {
        "mlflow models serve": [
            *(sys.executable, "-m", "mlflow", "models", "serve", "-m", subject.uri),
            *("--env-manager", "local", "-p", "PORT"),
        ],
        "likewise serve": [sys.executable, "-m", "likewise.cli", "serve", str(subject.bundle), "-p", "PORT"],
    }


@contextmanager
def running(argv: list[str], bodies: Path) -> Iterator[str]:
    """A server that has answered once; its whole process group is stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (FOLDER / "server.log").open("w") as log:
        server = subprocess.Popen(
            [str(port) if word == "PORT" else word for word in argv],
            stdout=log,
            stderr=log,
            env=environment,
            cwd=FOLDER,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}/invocations"
    first = Request(url, bodies.read_bytes().splitlines()[0], {"Content-Type": "application/json"})
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urlopen(first, timeout=60).read()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def load(url: str, bodies: Path, seconds: int, connections: int) -> Figures:
    """One run of wrk."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", "bench/post.lua", url]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env={**os.environ, "BODIES": str(bodies)})
    return dict(json.loads(done.stdout.splitlines()[-1]))
