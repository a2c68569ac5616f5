"""Concurrent clients of a deployment, which record every request without the expected response."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

TIMEOUT_S = 60.0  # an upper limit for each request and each wait of the suite


@dataclass
class Callers:
    """Threads that continuously send requests to a deployment of `upper_bundle`, until the end of `with`.

    each: number of threads that reuse a connection, and number of threads that open one per request.  answered: number
    of responses received.  wrong: requests without a response, with a status other than 200 or with the wrong text.
    bundles: the digests in the responses' headers, `None` for a response without one.
    """

    url: str
    each: int = 4
    headers: Mapping[str, str] = field(default_factory=dict)
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    bundles: set[str | None] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        arguments = [(number, reuse) for number in range(self.each) for reuse in (True, False)]
        self._threads = [threading.Thread(target=self._call, args=each) for each in arguments]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def until_answered(self, more: int) -> None:
        """Wait for `more` further responses, or for a request that went wrong."""
        goal = self.answered + more
        until(lambda: self.answered >= goal or bool(self.wrong))

    def _call(self, number: int, reuse: bool) -> None:
        parts, count = urlsplit(self.url), 0
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        while not self._over.is_set():
            count += 1
            text = f"{'reused' if reuse else 'new'} {number}.{count}"
            try:
                self._send(connection, text)
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(f"{text}: {error!r}")
                connection.close()
            if not reuse:
                connection.close()
        connection.close()

    def _send(self, connection: http.client.HTTPConnection, text: str) -> None:
        path = urlsplit(self.url).path.removesuffix("/invocations") + "/invocations"
        body = json.dumps({"inputs": [text]})
        connection.request("POST", path, body, {"Content-Type": "application/json", **self.headers})
        response = connection.getresponse()
        content = response.read().decode()
        self.bundles.add(response.headers.get("X-Likewise-Bundle"))
        if response.status != 200 or text.upper() not in content:
            self.wrong.append(f"{text}: {response.status} {content}")
        self.answered += 1


def until(done: Callable[[], bool]) -> None:
    """Wait until `done()` returns true; fails after TIMEOUT_S."""
    deadline = time.monotonic() + TIMEOUT_S
    while not done():
        assert time.monotonic() < deadline, f"the condition was not met within {TIMEOUT_S:g} s"
        time.sleep(0.01)
