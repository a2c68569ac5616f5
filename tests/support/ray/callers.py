"""Concurrent clients of a deployment, which count responses by version, and record every failure."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

PATIENCE = 60.0  # seconds


class Callers:
    """Threads that send one request after another to the deployment of a `versioned` model at `url`."""

    def __init__(self, url: str, count: int) -> None:
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []
        self.count = count
        self._url = url
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(count)]

    def wait_for(self, version: int | str, responses: int = 5) -> None:
        """Wait for this number of further responses of the version."""
        with self._changed:
            expected = self.versions[str(version)] + responses
            assert self._changed.wait_for(lambda: self.versions[str(version)] >= expected, PATIENCE), self.versions

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _call(self) -> None:
        with httpx.Client(timeout=PATIENCE) as client:
            while not self._stop.is_set():
                try:
                    response = client.post(self._url, json={"inputs": ["a"]})
                    version, colon, text = response.json()["predictions"][0].partition(":")
                    failure = "" if (response.status_code, colon, text) == (200, ":", "A") else response.text
                except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                    failure = f"{type(error).__name__}: {error}"
                with self._changed:
                    if failure:
                        self.failures.append(failure[:300])
                    else:
                        self.versions[version] += 1
                    self._changed.notify_all()


@contextmanager
def callers(url: str, count: int = 4) -> Iterator[Callers]:
    """Clients that run for the duration of the block."""
    running = Callers(url, count)
    running.start()
    try:
        yield running
    finally:
        running.stop()
