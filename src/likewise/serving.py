"""A bundle behind the web service: the one app that the local server, a Ray replica and a container run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from likewise.bundles.open import Bundle, open_bundle
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
    """The ASGI app, which loads the engine of `model` when its lifespan starts; see `server.app.create_app`."""
    load: Callable[[], Engine] = partial(open_engine, bundle, model)
    if options.workers:
        from likewise.workers import open_pool

        load = partial(open_pool, partial(_worker_engine, bundle.path, model), options.workers)
    return create_app(load, served_model(bundle), options, codec=codec, routes=routes, middleware=middleware)


def served_model(bundle: Bundle) -> ServedModel:
    """What the server tells of the model, with the JSON request body that was logged as its example."""
    example = bundle.model_path / "serving_input_example.json"
    return ServedModel(
        name=bundle.manifest.source.uri,
        version=_registered_version(bundle.manifest.source.resolved),
        digest=bundle.digest,
        signature=bundle.signature,
        example=example.read_bytes() if example.is_file() else None,
    )


def _registered_version(uri: str) -> str:
    """The version in `models:/NAME/VERSION`, else none."""
    found = re.fullmatch(r"models:/[^/]+/(\d+)", uri)
    return found[1] if found else ""


def _worker_engine(path: Path, model: ModelSpec) -> Engine:
    """What each worker process runs."""
    return open_engine(open_bundle(path), model)
