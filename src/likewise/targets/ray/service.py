"""Likewise's server inside a Serve replica: behind a route prefix, and healthy when its model is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from likewise.bundles.open import open_exactly
from likewise.core.spec import ModelSpec
from likewise.server import ServerOptions
from likewise.serving import bundle_app
from likewise.targets.ray.traffic_split import CanaryResponse, TrafficSplit, is_inference, respond

POLL_S = 0.02


class ReplicaService:
    """The app of the bundle in `folder`. model: a dict from `ModelSpec.portable`; server: fields of ServerOptions.

    Raises what `open_exactly` raises.
    """

    def __init__(self, folder: Path, model: Mapping[str, Any], server: Mapping[str, Any]) -> None:
        spec = ModelSpec.from_dict(model)
        bundle = open_exactly(spec, folder)
        # Serve writes its own access log, and is the proxy in front, which has other host names.
        options = ServerOptions(access_log=False, insecure=True, **server)
        app = bundle_app(bundle, spec, options, most_workers=1)  # Serve adds replicas
        self._replica_app = ReplicaApp(app)
        self.app: ASGIApp = self._replica_app
        self._service, self._metrics = app.state.service, app.state.metrics
        self._lease: asyncio.TimerHandle | None = None

    async def check(self) -> None:
        """Wait until the model has loaded or failed to load; raises NotReady, with the reason, unless it is ready.

        Not while a worker is being replaced: to replace the replica as well would take longer.
        """
        service = self._service
        while service.state.value == "loading" and service.failure is None and service.problem is None:
            await asyncio.sleep(POLL_S)
        service.check_usable()

    async def watch(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a fraction of the requests to a canary for another `lease_s` seconds; returns the figures so far.

        request: the settings of `TrafficSplit`, and lease_s. Without another call the split ends with the lease.
        """
        split = self._replica_app.split
        if split is None or split.run != request["run"]:  # in a thread: creating Serve's handle calls the controller
            split = self._replica_app.split = await asyncio.to_thread(TrafficSplit, self._replica_app.inner, request)
        self._cancel_lease()
        self._lease = asyncio.get_running_loop().call_later(request["lease_s"], self._end_split)
        return split.figures()

    def metrics(self) -> dict[str, str]:
        """The metrics page in Prometheus' text format, under `page`."""
        page, _ = self._metrics.exposition("", **self._service.gauges)
        return {"page": page.decode()}

    async def unwatch(self, run: str) -> dict[str, Any] | None:
        """End the split: handle all requests here; returns the final figures, None if there is no such split."""
        split = self._replica_app.split
        if split is None or split.run != run:
            return None
        self._cancel_lease()
        self._end_split()
        return split.figures()

    async def answer(self, request: Mapping[str, Any]) -> CanaryResponse:
        """As a canary: the response to a request that a replica of the old version forwarded."""
        return await respond(self.app, request)

    def _cancel_lease(self) -> None:
        if self._lease is not None:
            self._lease.cancel()

    def _end_split(self) -> None:
        self._replica_app.split = None


class ReplicaApp:
    """The app behind the route prefix: a POST to the prefix goes to `/invocations`, a GET is redirected to the page.

    Ray adds `X-Request-Id` to every request that has none, and to every response, so this app removes the server's own.
    split: the app that handles inference requests while a canary runs.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.inner = app
        self.split: TrafficSplit | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        prefix = scope.get("root_path", "")
        if scope["path"] == prefix and scope["method"] in ("GET", "HEAD") and prefix:  # the page's links are relative
            await RedirectResponse(f"{prefix.rpartition('/')[2]}/")(scope, receive, send)
            return
        if scope["path"].removeprefix(prefix) in ("", "/"):
            path = prefix + ("/invocations" if scope["method"] == "POST" else "/")
            scope = {**scope, "path": path, "raw_path": path.encode()}

        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
            await send(message)

        app = self.inner if self.split is None or not is_inference(scope) else self.split
        await app(scope, receive, send_once)
