"""Our server as a Serve replica has it: behind a prefix, and healthy when its model is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from likewise.bundles.open import open_bundle
from likewise.core.errors import BundleTampered
from likewise.core.spec import ModelSpec
from likewise.server import ServerOptions
from likewise.serving import bundle_app
from likewise.targets.ray.traffic_split import CanaryResponse, TrafficSplit, answered, asks

POLL_S = 0.02


class ReplicaService:
    """The app of the bundle in `folder`. model: as `ModelSpec.portable` gives it; server: fields of ServerOptions.

    Raises BundleTampered for another bundle than the one that was deployed, and what `open_bundle` raises.
    """

    def __init__(self, folder: Path, model: Mapping[str, Any], server: Mapping[str, Any]) -> None:
        bundle, spec = open_bundle(folder), ModelSpec.from_dict(model)
        if bundle.digest != spec.digest:
            raise BundleTampered(
                f"{bundle.digest} arrived where {spec.digest} was deployed", remedy="deploy the bundle again"
            )
        options = ServerOptions(access_log=False, **server)  # Serve writes one of its own
        app = bundle_app(bundle, spec, options)
        self._door = ReplicaApp(app)
        self.app: ASGIApp = self._door
        self._service = app.state.service
        self._lease: asyncio.TimerHandle | None = None

    async def check(self) -> None:
        """Once the model has been loaded or has failed to: NotReady, with the reason, unless it is ready."""
        service = self._service
        while service.state.value == "loading" and service.failure is None and service.problem is None:
            await asyncio.sleep(POLL_S)
        service.check_ready()

    async def watch(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Send a share of the requests to a canary for another `lease_s` seconds, and tell what was seen so far.

        told: what `Split` takes, and lease_s. Nobody has to end it: without a next call it ends by itself.
        """
        split = self._door.split
        if split is None or split.run != told["run"]:  # made in a thread: Serve's handle asks the controller
            split = self._door.split = await asyncio.to_thread(TrafficSplit, self._door.inner, told)
        self._release()
        self._lease = asyncio.get_running_loop().call_later(told["lease_s"], self._end)
        return split.figures()

    async def unwatch(self, run: str) -> dict[str, Any] | None:
        """Keep all requests from now on; what was seen by then, None where nothing was on."""
        split = self._door.split
        if split is None or split.run != run:
            return None
        self._release()
        self._end()
        return split.figures()

    async def answer(self, request: Mapping[str, Any]) -> CanaryResponse:
        """As a canary: the answer to a request that came to a replica of the old version."""
        return await answered(self.app, request)

    def _release(self) -> None:
        if self._lease is not None:
            self._lease.cancel()

    def _end(self) -> None:
        self._door.split = None


class ReplicaApp:
    """The app behind the route prefix: a POST to the prefix itself is one to `/invocations`, a GET gets the page.

    Ray puts `X-Request-Id` into every request that has none, and into every answer: ours would be a second one.
    split: while a canary runs, what the questions go to.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.inner = app
        self.split: TrafficSplit | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        prefix = scope.get("root_path", "")
        if scope["path"].removeprefix(prefix) in ("", "/"):
            path = prefix + ("/invocations" if scope["method"] == "POST" else "/")
            scope = {**scope, "path": path, "raw_path": path.encode()}

        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
            await send(message)

        app = self.inner if self.split is None or not asks(scope) else self.split
        await app(scope, receive, send_once)
