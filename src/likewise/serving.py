"""Serve a bundle over HTTP: the app that the local server, Ray replicas and containers run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from likewise.bundles.open import Bundle, open_exactly
from likewise.core.engine import Engine
from likewise.core.spec import ModelSpec
from likewise.engine.load import open_engine
from likewise.server import ServedModel, ServerOptions
from likewise.server.app import create_app
from likewise.server.codec import Codec


def bundle_app(
    bundle: Bundle,
    model: ModelSpec,
    options: ServerOptions,
    *,
    codec: Codec | None = None,
    routes: Sequence[Route] = (),
    middleware: Sequence[Middleware] = (),
) -> Starlette:
    """The ASGI app, which loads the engine of `model` at lifespan startup; see `server.app.create_app`."""
    load: Callable[[], Engine] = partial(open_engine, bundle, model)
    if options.workers:
        from likewise.workers import open_pool

        load = partial(open_pool, partial(_worker_engine, bundle.path, model), options.workers)
    return create_app(load, served_model(bundle), options, codec=codec, routes=routes, middleware=middleware)


def served_model(bundle: Bundle) -> ServedModel:
    """Metadata of the model that the server exposes, including the input example that was logged with it."""
    example = bundle.model_path / "serving_input_example.json"
    return ServedModel(
        name=bundle.manifest.source.clean.uri,
        version=_registered_version(bundle.manifest.source.resolved),
        digest=bundle.digest,
        build=bundle.build,
        signature=bundle.signature,
        example=example.read_bytes() if example.is_file() else None,
    )


def _registered_version(uri: str) -> str:
    """The version in `models:/NAME/VERSION`; an empty string for any other URI."""
    match = re.fullmatch(r"models:/[^/]+/(\d+)", uri)
    return match[1] if match else ""


def _worker_engine(path: Path, model: ModelSpec) -> Engine:
    """Open the engine in a worker process."""
    return open_engine(open_exactly(model, path, in_place=True, partial=True), model)
