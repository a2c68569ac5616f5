"""Concurrent callers of a deployment, who note every request that was not answered as it should be."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

TIMEOUT_S = 60.0  # no request and no wait of the suite needs it


@dataclass
class Callers:
    """Threads that send one request after another to a deployment of `upper_bundle`, until the end of `with`.

    each: how many keep their connection, and how many open one for every request.  answered: requests that got any
    answer.  wrong: each request without an answer, with another status than 200 or with another text.  bundles: the
    digests in the answers' headers, `None` for an answer without one.
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
        which = [(number, keeps) for number in range(self.each) for keeps in (True, False)]
        self._threads = [threading.Thread(target=self._call, args=each) for each in which]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def until_answered(self, more: int) -> None:
        """Until so many more requests are answered, or one went wrong."""
        wanted = self.answered + more
        until(lambda: self.answered >= wanted or bool(self.wrong))

    def _call(self, number: int, keeps: bool) -> None:
        parts, count = urlsplit(self.url), 0
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        while not self._over.is_set():
            count += 1
            text = f"{'kept' if keeps else 'fresh'} {number}.{count}"
            try:
                self._ask(connection, text)
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(f"{text}: {error!r}")
                connection.close()
            if not keeps:
                connection.close()
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, text: str) -> None:
        path = urlsplit(self.url).path.removesuffix("/invocations") + "/invocations"
        body = json.dumps({"inputs": [text]})
        connection.request("POST", path, body, {"Content-Type": "application/json", **self.headers})
        answer = connection.getresponse()
        answered = answer.read().decode()
        self.bundles.add(answer.headers.get("X-Likewise-Bundle"))
        if answer.status != 200 or text.upper() not in answered:
            self.wrong.append(f"{text}: {answer.status} {answered}")
        self.answered += 1


def until(done: Callable[[], bool]) -> None:
    """Wait until `done()`."""
    deadline = time.monotonic() + TIMEOUT_S
    while not done():
        assert time.monotonic() < deadline, f"it did not happen within {TIMEOUT_S:g} s"
        time.sleep(0.01)
