"""A server process around one of the models of `model_server.py`, its metrics and its log."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

SCRIPT = Path(__file__).with_name("model_server.py")
PATIENCE = 60  # seconds; none of these tests needs them


class Served:
    """The running process."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log
        self.headers: dict[str, str] = {}  # of what is asked here
        self.address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)

    @property
    def authority(self) -> str:
        """HOST:PORT."""
        return urlsplit(self.url).netloc

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name and with these labels, each of which has the label `bundle`."""
        page = httpx.get(f"{self.url}/metrics", headers=self.headers, timeout=PATIENCE).text
        found = [
            sample
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert all(sample.labels["bundle"] == "sha256:abc" for sample in found)
        return sum(sample.value for sample in found)

    def rss(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def log_lines(self) -> list[dict[str, Any]]:
        """The access log of a process that has ended; whatever else stands in the log is no JSON, and fails."""
        assert self.process.poll() is not None
        return [json.loads(line) for line in self.log.read_text().splitlines()]


class Gate:
    """A text that keeps the engine of the model `text` busy until it is opened."""

    def __init__(self, folder: Path, name: str = "gate") -> None:
        self._path = folder / name
        self.text = f"gate {self._path}"

    async def begun(self) -> None:
        """The engine has come to it."""
        await until(Path(f"{self._path}.begun").exists)

    def open(self) -> None:
        """Let it be answered."""
        self._path.touch()


@asynccontextmanager
async def client_of(running: Served, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=running.url, timeout=PATIENCE, limits=limits, **options) as client:
        yield client


def asking(client: httpx.AsyncClient, *texts: str) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post("/invocations", json={"inputs": list(texts)}))


def check_error(answer: httpx.Response, status: int, code: str, said: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (status, code)
    assert said in body["message"]
    assert body["remedy"]
    assert answer.headers["X-Likewise-Bundle"] == "sha256:abc"
    assert answer.headers["X-Request-Id"]


@contextmanager
def served(log: Path, model: str = "text", **options: object) -> Iterator[Served]:
    """Ready; with `options` of ServerOptions."""
    command = [sys.executable, str(SCRIPT), model, "--options", json.dumps(options)]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline() or log.read_text())["listening"]
            assert json.loads(process.stdout.readline()) == {"ready": url}
            yield Served(process, url, log)
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()


async def until(done: Callable[[], bool]) -> None:
    """Until `done()`; it is asked in a thread, as it may ask the server."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(done):
            await asyncio.sleep(0.005)
