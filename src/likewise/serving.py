"""Serve a bundle over HTTP: the app that the local server, Ray replicas and containers run."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle, is_bundle, open_exactly
from likewise.core.engine import Engine, EngineSpec
from likewise.core.errors import EngineUnavailable, LikewiseError, MissingExtra
from likewise.core.items import Item
from likewise.core.spec import ModelSpec
from likewise.core.uris import redacted, without_secrets
from likewise.engine.accelerate.agreement import agreements_of
from likewise.engine.kinds import in_processes, runs_code
from likewise.engine.load import allowed_engines, open_engine, open_first
from likewise.engine.rates import by_speed, label, speeds
from likewise.server import ServedModel, ServerOptions
from likewise.server.app import create_app
from likewise.server.codec import Codec
from likewise.wire import Decoder

logger = logging.getLogger("likewise.serving")

MOST = 4
"""The most worker processes, if the user does not set their number."""
NOT_CONTAINED = (
    "the model's code runs in the server process: a row that hangs, crashes or takes all memory stops the service for "
    "all callers; without --in-process (or --workers 0) it runs in worker processes, which are ended and replaced"
)


def bundle_app(
    bundle: Bundle,
    model: ModelSpec,
    options: ServerOptions,
    *,
    codec: Codec | None = None,
    routes: Sequence[Route] = (),
    middleware: Sequence[Middleware] = (),
    most_workers: int = MOST,
) -> Starlette:
    """The ASGI app, which loads the engine of `model` at lifespan startup; see `server.app.create_app`.

    most_workers: the most processes that run the model, if the options do not set their number.
    """
    load = partial(open_served, bundle, model, options, most_workers)
    return create_app(load, served_model(bundle), options, codec=codec, routes=routes, middleware=middleware)


def open_served(bundle: Bundle, model: ModelSpec, options: ServerOptions, most_workers: int = MOST) -> Engine:
    """The engine of `model`: in worker processes if its kind needs them, unless the options say otherwise.

    Raises what `open_engine` and `open_pool` raise.
    """
    allowed = allowed_engines(bundle.manifest, model)
    here: Sequence[EngineEntry] = ()
    if options.in_process or options.workers == 0:
        here = allowed
    elif options.workers is None:
        here = list(takewhile(lambda entry: not in_processes(entry, bundle), allowed))
    try:
        if here:
            return _warned(open_first(bundle, here, model), here)
    except (MissingExtra, EngineUnavailable):
        if len(here) == len(allowed):
            raise
    from likewise.workers import PoolOptions, automatic_count, open_pool

    size = sum(entry.size for entry in bundle.manifest.files.values())
    return open_pool(
        _opener(bundle, model),
        options.workers or automatic_count(size, most_workers),
        PoolOptions(
            run_timeout_s=options.run_timeout_s,
            shrinks=options.workers is None,
            warm_up=partial(_example_items, served_model(bundle)),
        ),
    )


def _warned(engine: Engine, entries: Sequence[EngineEntry]) -> Engine:
    """`engine`, one of `entries` in the server's process, after a warning if it runs the model's code."""
    if any(runs_code(entry) and label(entry) == engine.spec.label for entry in entries):
        logger.warning(NOT_CONTAINED)
    return engine


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
        facts=_facts(bundle),
    )


def _facts(bundle: Bundle) -> dict[str, object]:
    """The bundle's facts for `/bundle.json`, without those that are absent."""
    manifest, environment = bundle.manifest, bundle.manifest.environment
    rates, agreements = speeds(manifest), agreements_of(manifest)
    engines = [
        {
            "name": label(entry),
            "runs_code": runs_code(entry),
            "rows_per_second": rates.get(label(entry)),
            "agreement": str(agreements[label(entry)]) if label(entry) in agreements else None,
        }
        for entry in by_speed(manifest.engines, rates)
    ]
    stated = {
        "row_wise": manifest.row_wise,
        "steps": list((manifest.pipeline or {}).get("steps", ())),  # type: ignore[call-overload]
        "engines": engines,
        "references": [without_secrets(reference.uri) for reference in manifest.references],
        "python": environment.python,
        "requirements": [redacted(line) for line in environment.requirements],
        "bytes": sum(entry.size for entry in manifest.files.values()),
    }
    return {name: value for name, value in stated.items() if value not in (None, [])}


def _registered_version(uri: str) -> str:
    """The version in `models:/NAME/VERSION`; an empty string for any other URI."""
    match = re.fullmatch(r"models:/[^/]+/(\d+)", uri)
    return match[1] if match else ""


def _opener(bundle: Bundle, model: ModelSpec) -> Callable[[], Engine]:
    """Opens the engine in a worker process, after the bundle has been verified again."""
    if is_bundle(bundle.path):
        return partial(_worker_engine, bundle.path, model)
    return partial(open_engine, bundle, model)


def _worker_engine(path: Path, model: ModelSpec) -> Engine:
    return open_engine(open_exactly(model, path, in_place=True, partial=True), model)


def _example_items(served: ServedModel, spec: EngineSpec) -> Sequence[Item]:
    """The items of the model's input example; none if it has no valid one, which the server's own warm-up reports."""
    if served.example is None:
        return ()
    try:
        return Decoder(served.signature)(served.example, None).items(spec.row_wise)
    except LikewiseError:
        return ()
