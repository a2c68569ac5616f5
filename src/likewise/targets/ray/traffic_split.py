"""In a replica of the old version: a share of its requests goes to the canary, and both versions are timed.

What the canary does not answer well the old version answers, so nobody sees it fail: inference may be repeated.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import secrets
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from likewise.targets.ray.version_stats import Side

FIRST = 5  # answers of its own before a replica sends any away: they say how long to wait for the canary
PATIENCE = 5.0  # times the old version's p95; whoever waits longer is answered by the old version
PATIENCE_S = 1.0  # at least
HALF = 0.5  # of what the canary was given: an old version that needs more says nothing against it
SAID = 300  # characters

Fields = list[tuple[bytes, bytes]]
CanaryResponse = tuple[
    int, Fields, bytes, float
]  # status, headers, body, seconds in the canary: plain, as versions may differ


@dataclass(frozen=True, slots=True)
class Miss:
    """A request that the canary did not answer well. waited: seconds, where it was too late."""

    why: str
    waited: float | None = None


class TrafficSplit:
    """The app of one replica while a canary runs; see `likewise.targets.ray.canary` for who tells it so.

    told: run, app and deployment (of the canary), share (percent), deadline_s, body_limit_bytes.
    """

    def __init__(self, app: ASGIApp, told: Mapping[str, Any]) -> None:
        self.run = told["run"]
        self._app = app
        self._told = told
        self._token = secrets.token_hex(8)
        self._old, self._new = Side(), Side()
        self._said = ""
        serve = importlib.import_module("ray.serve")
        self._canary = serve.get_deployment_handle(told["deployment"], told["app"])

    def figures(self) -> dict[str, Any]:
        """Of both versions, and what the canary said last when it failed; token: another one, other counts."""
        return {"token": self._token, "old": self._old.as_dict(), "new": self._new.as_dict(), "said": self._said}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        share = self._told["share"] if self._old.good >= FIRST else 0.0
        if random.random() * 100 >= share:  # noqa: S311  no secret
            status, seconds = await self._own(scope, receive, send)
            self._note_own(status, seconds)
            return
        body, again = await _read(receive, self._told["body_limit_bytes"])
        if body is None:  # too large, or its sender has gone: the server says so in its own words
            await self._own(scope, again, send)
            return
        reply = await self._asked(_request(scope, body))
        if isinstance(reply, Miss):
            status, seconds = await self._own(scope, again, send)
            self._note_miss(reply, status, seconds)
        else:
            self._new.add(reply[3])
            await _send(reply, send)

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> tuple[int, float]:
        """Status and seconds of the old version's own answer."""
        status, began = 0, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, noting)
        return status, time.perf_counter() - began

    def _note_own(self, status: int, seconds: float) -> None:
        if status == 422 or status >= 500:
            self._old.failed += 1
        elif 200 <= status < 400:
            self._old.add(seconds)

    async def _asked(self, request: dict[str, Any]) -> CanaryResponse | Miss:
        """The canary's good answer, or why there is none."""
        patience = min(max(PATIENCE_S, PATIENCE * self._old.quantile(0.95)), self._told["deadline_s"])
        response = self._canary.answer.remote(request)
        try:
            async with asyncio.timeout(patience):
                reply: CanaryResponse = await response
        except TimeoutError:
            response.cancel()
            return Miss(f"no answer in {patience:.1f} s", patience)
        except Exception as error:  # noqa: BLE001  whatever Ray says when a replica dies
            return Miss(f"{type(error).__name__}: {error}")
        return reply if reply[0] < 400 else Miss(f"{reply[0]}: {reply[2].decode(errors='replace')}")

    def _note_miss(self, miss: Miss, status: int, seconds: float) -> None:
        """It counts where the old version has answered the same request, and in much less time."""
        if not 200 <= status < 400 or (miss.waited is not None and seconds > miss.waited * HALF):
            return
        self._new.failed += 1
        self._new.late += miss.waited is not None
        self._said = miss.why[:SAID]


def asks(scope: Scope) -> bool:
    """Whether the request may go to either version: a question, and not one to a version that it names."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    infer = path.startswith("/v2/models/") and path.endswith("/infer") and "/versions/" not in path
    return scope["method"] == "POST" and (infer or path == "/invocations")


async def answered(app: ASGIApp, request: Mapping[str, Any]) -> CanaryResponse:
    """In the canary: the answer of `app` to what `_request` made in another replica."""
    status, headers, parts, began = 500, list[tuple[bytes, bytes]](), list[bytes](), time.perf_counter()
    body = iter([{"type": "http.request", "body": request["body"], "more_body": False}])

    async def receive() -> Message:
        for message in body:
            return message
        await asyncio.Event().wait()  # the caller stays until the answer
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], [pair for pair in message["headers"] if pair[0] != b"connection"]
        else:
            parts.append(message.get("body", b""))

    await app({**_SCOPE, **request["scope"]}, receive, send)
    return status, headers, b"".join(parts), time.perf_counter() - began


_SCOPE = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": ""}


def _request(scope: Scope, body: bytes) -> dict[str, Any]:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    kept = {name: scope[name] for name in ("method", "query_string")}
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    return {"scope": {**kept, "path": path, "raw_path": path.encode(), "headers": headers}, "body": body}


async def _read(receive: Receive, limit: int) -> tuple[bytes | None, Receive]:
    """The body, None where it cannot be had whole within `limit` bytes; and a `receive` that gives it all again."""
    messages: deque[Message] = deque()
    parts, size, whole = list[bytes](), 0, False
    while not whole and size <= limit:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        size, whole = size + len(parts[-1]), not message.get("more_body", False)

    async def again() -> Message:
        return messages.popleft() if messages else await receive()

    return b"".join(parts) if whole and size <= limit else None, again


async def _send(reply: CanaryResponse, send: Send) -> None:
    status, headers, content, _ = reply
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
