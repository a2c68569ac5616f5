"""A server process around one of the models of `model_server.py`: its metrics, its log, and what clients ask it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.support.processes import PATIENCE, Running, running, until_async

SCRIPT = Path(__file__).with_name("model_server.py")


class Service(Running):
    """A process that serves at `url`."""

    def __init__(self, process: Running, url: str, bundle: str = "sha256:abc") -> None:
        super().__init__(process.process, process.log)
        self.url = url
        self.bundle = bundle
        self.headers: dict[str, str] = {}  # of the requests that `metric` sends
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
        assert all(sample.labels["bundle"] == self.bundle for sample in found)
        return sum(sample.value for sample in found)

    def log_lines(self) -> list[dict[str, Any]]:
        """The access log of a process that has ended; a line that is not JSON fails."""
        assert self.process.poll() is not None
        return [json.loads(line) for line in self.log.read_text().splitlines()]


class Gate:
    """A text that keeps the engine of the model `text` busy until it is opened."""

    def __init__(self, folder: Path, name: str = "gate") -> None:
        self._path = folder / name
        self.text = f"gate {self._path}"

    async def begun(self) -> None:
        """The engine has come to it."""
        await until_async(Path(f"{self._path}.begun").exists)

    def open(self) -> None:
        """Let it be answered."""
        self._path.touch()


@asynccontextmanager
async def client_of(service: Service, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE, limits=limits, **options) as client:
        yield client


def asking(client: httpx.AsyncClient, *texts: str) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post("/invocations", json={"inputs": list(texts)}))


def check_error(answer: httpx.Response, status: int, code: str, message: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (status, code)
    assert message in body["message"]
    assert body["remedy"]
    assert answer.headers["X-Likewise-Bundle"] == "sha256:abc"
    assert answer.headers["X-Request-Id"]


@contextmanager
def started(log: Path, model: str = "text", *words: str, **options: object) -> Iterator[Running]:
    """The process, with these words of its command line and options of ServerOptions; it may not be ready, or fail."""
    command = [sys.executable, str(SCRIPT), model, "--options", json.dumps(options), *words]
    with running(command, log) as process:
        yield process


def ready(process: Running) -> Service:
    """A process that `started` gave, once it is ready."""
    url = process.event("listening")
    assert process.event("ready") == url
    return Service(process, url)


@contextmanager
def served(log: Path, model: str = "text", *words: str, **options: object) -> Iterator[Service]:
    """One that is ready, and that logs no traceback to its end."""
    with started(log, model, *words, **options) as process:
        yield ready(process)
    assert "Traceback" not in log.read_text()
