"""In a replica of the old version: forwards a fraction of its requests to the canary, and times both versions.

If the canary fails a request, the old version handles it, so clients see no failure: inference may be repeated.
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

from likewise.targets.ray.version_stats import VersionStats

MIN_OWN_RESPONSES = 5  # that a replica needs before it forwards requests: they determine the canary's time-out
TIMEOUT_FACTOR = 5.0  # time-out of the canary, as a multiple of the old version's p95; then the old version responds
MIN_TIMEOUT_S = 1.0
MAX_TIMEOUT_FRACTION = 0.5  # a time-out counts only if the old version needs at most this fraction of it
MESSAGE_CHARS = 300
HELD_BYTES = 100 * 1024 * 1024  # of bodies that are kept until the canary has responded; more go to the old version

Fields = list[tuple[bytes, bytes]]
# status, headers, body, seconds in the canary: plain types, because the two versions of Likewise may differ
CanaryResponse = tuple[int, Fields, bytes, float]


@dataclass(frozen=True, slots=True)
class Miss:
    """A request that the canary failed. waited: the time-out in seconds if the response was too late, else None."""

    reason: str
    waited: float | None = None


class TrafficSplit:
    """The ASGI app of one replica while a canary runs; the watcher (`likewise.targets.ray.canary`) starts and ends it.

    settings: run (the watch's id), app and deployment (of the canary), share (percent), deadline_s, body_limit_bytes.
    """

    def __init__(self, app: ASGIApp, settings: Mapping[str, Any]) -> None:
        self.run = settings["run"]
        self._app = app
        self._settings = settings
        self._token = secrets.token_hex(8)
        self._old, self._new = VersionStats(), VersionStats()
        self._last_error = ""
        self._held = 0
        serve = importlib.import_module("ray.serve")
        self._canary = serve.get_deployment_handle(settings["deployment"], settings["app"])

    def figures(self) -> dict[str, Any]:
        """The statistics of both versions and the canary's last error; counts that restart from 0 have a new token."""
        return {"token": self._token, "old": self._old.as_dict(), "new": self._new.as_dict(), "said": self._last_error}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        percent = self._settings["share"] if self._old.good >= MIN_OWN_RESPONSES else 0.0
        size = _announced(scope) or self._settings["body_limit_bytes"]
        if random.random() * 100 >= percent or self._held + size > HELD_BYTES:  # noqa: S311  not for cryptography
            status, seconds = await self._own(scope, receive, send)
            self._note_own(status, seconds)
            return
        self._held += size
        try:
            await self._canary_first(scope, receive, send)
        finally:
            self._held -= size

    async def _canary_first(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the canary's response, or the old version's own if the canary fails."""
        body, again = await _read(receive, self._settings["body_limit_bytes"])
        if body is None:  # too large, or the client disconnected: the server handles it
            await self._own(scope, again, send)
            return
        response = await self._forward(_request(scope, body))
        if isinstance(response, Miss):
            status, seconds = await self._own(scope, again, send)
            self._note_miss(response, status, seconds)
        else:
            self._new.add(response[3])
            await _send(response, send)

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> tuple[int, float]:
        """The status and duration in seconds of the old version's own response."""
        status, started = 0, time.perf_counter()

        async def record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, record_status)
        return status, time.perf_counter() - started

    def _note_own(self, status: int, seconds: float) -> None:
        if status == 422 or status >= 500:
            self._old.failed += 1
        elif 200 <= status < 400:
            self._old.add(seconds)

    async def _forward(self, request: dict[str, Any]) -> CanaryResponse | Miss:
        """The canary's successful response, or a Miss with the reason."""
        timeout_s = min(max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * self._old.quantile(0.95)), self._settings["deadline_s"])
        pending = self._canary.answer.remote(request)
        try:
            async with asyncio.timeout(timeout_s):
                response: CanaryResponse = await pending
        except TimeoutError:
            pending.cancel()
            return Miss(f"no response in {timeout_s:.1f} s", timeout_s)
        except Exception as error:  # noqa: BLE001  any error that Ray raises when a replica dies
            return Miss(f"{type(error).__name__}: {error}")
        return response if response[0] < 400 else Miss(f"{response[0]}: {response[2].decode(errors='replace')}")

    def _note_miss(self, miss: Miss, status: int, seconds: float) -> None:
        """Count a failure of the canary if the old version then handled the same request successfully.

        After a time-out, also only if the old version needed much less time.
        """
        if not 200 <= status < 400 or (miss.waited is not None and seconds > miss.waited * MAX_TIMEOUT_FRACTION):
            return
        self._new.failed += 1
        self._new.late += miss.waited is not None
        self._last_error = miss.reason[:MESSAGE_CHARS]


def is_inference(scope: Scope) -> bool:
    """Whether the request may go to either version: an inference request that does not specify a version."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    infer = path.startswith("/v2/models/") and path.endswith("/infer") and "/versions/" not in path
    return scope["method"] == "POST" and (infer or path == "/invocations")


async def respond(app: ASGIApp, request: Mapping[str, Any]) -> CanaryResponse:
    """In the canary: the response of `app` to a request that `_request` created in another replica."""
    status, headers, parts, started = 500, list[tuple[bytes, bytes]](), list[bytes](), time.perf_counter()
    body = iter([{"type": "http.request", "body": request["body"], "more_body": False}])

    async def receive() -> Message:
        for message in body:
            return message
        await asyncio.Event().wait()  # the client stays connected until the response
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], [pair for pair in message["headers"] if pair[0] != b"connection"]
        else:
            parts.append(message.get("body", b""))

    await app({**_SCOPE, **request["scope"]}, receive, send)
    return status, headers, b"".join(parts), time.perf_counter() - started


_SCOPE = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": ""}


def _announced(scope: Scope) -> int:
    """The Content-Length; 0 if there is none."""
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(length) if length.isdigit() else 0


def _request(scope: Scope, body: bytes) -> dict[str, Any]:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    fields = {name: scope[name] for name in ("method", "query_string")}
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    return {"scope": {**fields, "path": path, "raw_path": path.encode(), "headers": headers}, "body": body}


async def _read(receive: Receive, limit: int) -> tuple[bytes | None, Receive]:
    """The body, None if it is incomplete or exceeds `limit` bytes; and a `receive` that replays its messages."""
    messages: deque[Message] = deque()
    parts, size, complete = list[bytes](), 0, False
    while not complete and size <= limit:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        size, complete = size + len(parts[-1]), not message.get("more_body", False)

    async def again() -> Message:
        return messages.popleft() if messages else await receive()

    return b"".join(parts) if complete and size <= limit else None, again


async def _send(response: CanaryResponse, send: Send) -> None:
    status, headers, content, _ = response
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
