"""A server process for one of the models of `model_server.py`: its metrics, its log, and client helpers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.support.processes import PATIENCE, Running, running, until_async

SCRIPT = Path(__file__).with_name("model_server.py")


class Service(Running):
    """A server process listening at `url`."""

    def __init__(self, process: Running, url: str, bundle: str = "sha256:abc") -> None:
        super().__init__(process.process, process.log)
        self.url = url
        self.bundle = bundle
        self.headers: dict[str, str] = {}  # of the requests that `metric` sends
        self.address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)

    @property
    def authority(self) -> str:
        """HOST:PORT of the server."""
        return urlsplit(self.url).netloc

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples with this name and these labels; checks that each has the label `bundle`."""
        page = httpx.get(f"{self.url}/metrics", headers=self.headers, timeout=PATIENCE).text
        samples = [
            sample
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert all(sample.labels["bundle"] == self.bundle for sample in samples)
        return sum(sample.value for sample in samples)

    def log_lines(self) -> list[dict[str, Any]]:
        """The access log of a process that has exited."""
        assert self.process.poll() is not None
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


class Gate:
    """A text that blocks the engine of the model `text` until the gate is opened."""

    def __init__(self, folder: Path, name: str = "gate") -> None:
        self._path = folder / name
        self.text = f"gate {self._path}"

    async def reached(self) -> None:
        """Wait until the engine processes the text."""
        await until_async(Path(f"{self._path}.begun").exists)

    def open(self) -> None:
        """Let the engine finish the text."""
        self._path.touch()


@asynccontextmanager
async def client_of(service: Service, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE, limits=limits, **options) as client:
        yield client


def post_texts(client: httpx.AsyncClient, *texts: str) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post("/invocations", json={"inputs": list(texts)}))


def check_error(response: httpx.Response, status: int, code: str, message: str) -> None:
    body = response.json()
    assert (response.status_code, body["error_code"]) == (status, code)
    assert message in body["message"]
    assert body["remedy"]
    assert response.headers.get("X-Likewise-Bundle") == (None if status == 401 else "sha256:abc")
    assert response.headers["X-Request-Id"]


@contextmanager
def started(
    log: Path, model: str = "text", *words: str, env: Mapping[str, str] | None = None, **options: object
) -> Iterator[Running]:
    """Start the process with arguments `words` and server `options`; it may not be ready yet, or fail."""
    command = [sys.executable, str(SCRIPT), model, "--options", json.dumps(options), *words]
    with running(command, log, env=env) as process:
        yield process


def ready(process: Running) -> Service:
    """Wait until a process from `started` is ready."""
    url = process.event("listening")
    assert process.event("ready") == url
    return Service(process, url)


@contextmanager
def served(
    log: Path, model: str = "text", *words: str, env: Mapping[str, str] | None = None, **options: object
) -> Iterator[Service]:
    """A server that is ready; checks at the end that it logged no traceback."""
    with started(log, model, *words, env=env, **options) as process:
        yield ready(process)
    assert "Traceback" not in log.read_text()
