"""Our server as a Serve replica has it: behind a prefix, and healthy when its model is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from likewise.bundles.open import open_bundle
from likewise.bundles.trust import Trust
from likewise.core.errors import BundleTampered
from likewise.engine.options import EngineOptions
from likewise.server import ServerOptions
from likewise.serving import bundle_app

POLL_S = 0.02


class ReplicaService:
    """The app of the bundle in `folder`. model: digest, engine, precision, trust; server: fields of ServerOptions.

    Raises BundleTampered for another bundle than the one that was deployed, and what `open_bundle` raises.
    """

    def __init__(self, folder: Path, model: Mapping[str, Any], server: Mapping[str, Any]) -> None:
        bundle = open_bundle(folder)
        if bundle.digest != model["digest"]:
            raise BundleTampered(
                f"{bundle.digest} arrived where {model['digest']} was deployed", remedy="deploy the bundle again"
            )
        choice = EngineOptions(model["engine"], model["precision"])
        options = ServerOptions(access_log=False, **server)  # Serve writes one of its own
        app = bundle_app(bundle, choice, Trust(allow=model["trust"]), options)
        self.app: ASGIApp = Door(app)
        self._service = app.state.service

    async def check(self) -> None:
        """Once the model has been loaded or has failed to: NotReady, with the reason, unless it is ready."""
        service = self._service
        while service.state.value == "loading" and service.failure is None and service.problem is None:
            await asyncio.sleep(POLL_S)
        service.check_ready()


class Door:
    """The app behind the route prefix: a POST to the prefix itself is one to `/invocations`, a GET gets the page.

    Ray puts `X-Request-Id` into every request that has none, and into every answer: ours would be a second one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        prefix = scope.get("root_path", "")
        if scope["path"].removeprefix(prefix) in ("", "/"):
            path = prefix + ("/invocations" if scope["method"] == "POST" else "/")
            scope = {**scope, "path": path, "raw_path": path.encode()}

        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
            await send(message)

        await self._app(scope, receive, send_once)
