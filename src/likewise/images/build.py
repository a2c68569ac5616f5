"""MODEL's bundle becomes an image: three layers, a configuration, a manifest, and a name in the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from likewise.bundles.folder import regular_files
from likewise.bundles.format import EngineEntry
from likewise.bundles.open import LEFT_OUT, Bundle
from likewise.core.digests import canonical_json, sha256_bytes
from likewise.core.errors import CodeNotTrusted, WrongUsage
from likewise.core.option_fields import option
from likewise.core.spec import ModelSpec
from likewise.engine.engine_options import EngineOptions
from likewise.engine.kinds import kind_of, runs_code
from likewise.images.base import DEFAULT, Base, open_base
from likewise.images.environment import BIN, ENTRYPOINT, HOME, SERVE, environment_layer, site
from likewise.images.layers import LayerEntry, files_under, make_layer
from likewise.images.oci import CONFIG, INDEX, MANIFEST, PLATFORMS, Descriptor, Platform, local_name, platform_named
from likewise.images.store import Part, Store
from likewise.images.wheels import Wheels, pins
from likewise.shipping.payload import engine_of, requirements_of

PORT = 8080
USER = "65532:65532"  # nobody in particular; any other does as well
BUNDLE_LEVEL = 0  # of gzip: weights get a tenth smaller at best, and that takes five times as long as all the rest
OnProgress = Callable[[str], None]


def silent(text: str) -> None:
    """A `Report` that nobody reads."""


def _platforms(names: Iterable[str]) -> tuple[Platform, ...]:
    return tuple(platform_named(name) for name in names)


def _folders(names: Iterable[str]) -> tuple[Path, ...]:
    if missing := [name for name in names if not Path(name).is_dir()]:
        raise WrongUsage(f"there is no folder {missing[0]}", remedy="--wheels names a folder of wheels")
    return tuple(map(Path, names))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """Each field's `metadata["help"]` is its help text."""

    base: str = option(
        DEFAULT,
        "What it stands on: an image in a registry, or a folder or tar of one. It brings Python.",
        "--base IMAGE",
    )
    platforms: tuple[Platform, ...] = option(
        (PLATFORMS["linux/amd64"],), "linux/amd64 or linux/arm64; repeatable.", "--platform PLATFORM", parse=_platforms
    )
    wheels: tuple[Path, ...] = option(
        (), "Folder of wheels that no index has. Repeatable.", "--wheels DIR", parse=_folders
    )
    lock: Path | None = option(
        None, "Requirements file with hashes of all that goes in; without it, what is installed here.", "--lock FILE"
    )
    fresh: bool = option(False, "Look the base up again, though one of this name is here.", "--pull")
    created: int = option(0, "Seconds since 1970 that the image says it was made at.")


@dataclass(frozen=True, slots=True)
class Parts:
    """The three layers of an image, and what it says of itself, for one platform."""

    platform: Platform
    base: Base
    environment: Part
    bundle: Part
    engine: EngineEntry
    labels: dict[str, str]
    variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """An image in the store."""

    name: str
    image: Descriptor
    parts: tuple[Parts, ...]
    seconds: float


def build_image(
    bundle: Bundle,
    name: str,
    model: ModelSpec,
    options: ImageOptions | None = None,
    *,
    store: Store | None = None,
    report: OnProgress = silent,
) -> Built:
    """Assemble the image called `name` of `bundle`, with the engine of `model`; of several platforms, an index.

    Raises WrongUsage, CodeNotTrusted, EngineUnavailable, MissingExtra, InputNotFound, InputInvalid, TargetUnavailable.
    """
    start, options, store = time.perf_counter(), options or ImageOptions(), store or Store()
    called = str(local_name(name))
    with store.used():
        made = []
        for platform in options.platforms:
            parts = make_parts(bundle, model, platform, options, store, report)
            made.append((parts, assemble(store, parts, options.created)))
        image = made[0][1] if len(made) == 1 else _index(store, made)
        store.name(called, image)
    return Built(called, image, tuple(parts for parts, _ in made), time.perf_counter() - start)


def make_parts(
    bundle: Bundle, model: ModelSpec, platform: Platform, options: ImageOptions, store: Store, report: OnProgress
) -> Parts:
    """The layers for one platform, made unless they are here."""
    engine = engine_of(bundle, EngineOptions.of(model), trusted=model.trust)
    kind = kind_of(engine.name)
    if kind.runs_code and not model.trust:
        raise CodeNotTrusted(
            f"the engine {engine.name} of {bundle.path} runs the model's own code, which nobody has allowed",
            remedy="add --trust if you trust its maker",
        )
    base = open_base(store, options.base, platform, fresh=options.fresh)
    wheels = Wheels(store, platform, base.minor, base.glibc)
    pinned = pins(requirements_of(bundle, engine), platform, base.minor, unused=kind.image.dependencies)
    report(f"{platform}: {len(pinned)} distributions for the engine {engine.name}, Python 3.{base.minor}")
    links = [*options.wheels, *([own] if (own := bundle.path / "wheels").is_dir() else [])]
    locked = wheels.locked(pinned, links, options.lock)
    environment = environment_layer(base, wheels, locked, left_out=kind.image.files)
    what = {"bundle": sha256_bytes(bundle.manifest.dump()), "platform": str(platform), "level": BUNDLE_LEVEL}
    left = list(kind.unread(bundle))
    held = store.layer(
        {**what, "left_out": left}, lambda: make_layer(store, _carried(bundle, left), platform, level=BUNDLE_LEVEL)
    )
    labels = _labels(bundle, base, engine)
    return Parts(platform, base, environment, held, engine, labels, _variables(base, engine, model))


def _carried(bundle: Bundle, left: Sequence[str]) -> Iterator[LayerEntry]:
    files = ((name, path) for name, path in regular_files(bundle.path) if name not in {*left, LEFT_OUT})
    yield from files_under(f"{HOME}/bundle", files)
    if left:
        yield LayerEntry.of(f"{HOME}/bundle/{LEFT_OUT}", canonical_json(left))


def _labels(bundle: Bundle, base: Base, engine: EngineEntry) -> dict[str, str]:
    """What can be read of the image without starting it; no word of where the model came from."""
    from likewise.server.description.form_schemas import forms

    schema = forms(bundle.signature)
    return {
        "org.opencontainers.image.title": "likewise",
        "org.opencontainers.image.base.name": Path(base.name).name if Path(base.name).exists() else base.name,
        "org.opencontainers.image.base.digest": base.digest,
        "likewise.bundle": bundle.digest,
        "likewise.engine": engine.name,
        "likewise.signature": canonical_json(bundle.manifest.signature_raw).decode(),
        "likewise.schema": canonical_json(schema.records or schema.inputs).decode(),
        "com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true",
    }


def _variables(base: Base, engine: EngineEntry, model: ModelSpec) -> tuple[str, ...]:
    theirs = dict(entry.partition("=")[::2] for entry in base.config.get("config", {}).get("Env") or ())
    path = theirs.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    ours = {
        "PATH": f"/{BIN}:{path}",
        "PYTHONPATH": f"/{site(base.minor)}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "LIKEWISE_ENGINE": engine.name,
        **({"LIKEWISE_PRECISION": model.precision} if model.precision else {}),
        **({"LIKEWISE_TRUST": "true"} if runs_code(engine) else {}),
    }
    return tuple(f"{name}={value}" for name, value in {**theirs, **ours}.items())


def assemble(store: Store, parts: Parts, created: int) -> Descriptor:
    """Configuration and manifest of one platform's image. Source: the OCI image specification."""
    theirs, at = dict(parts.base.config), datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ours = [("environment", parts.environment.layer), ("bundle", parts.bundle.layer)]
    layers = [*parts.base.layers, *(layer for _, layer in ours)]
    history = [*theirs.get("history", []), *({"created": at, "created_by": f"likewise: {what}"} for what, _ in ours)]
    config = {
        **{key: value for key, value in theirs.items() if key in ("variant", "os.version", "os.features")},
        **parts.platform.document,
        "created": at,
        "config": {**(theirs.get("config") or {}), **_how_to_run(parts)},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": history,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": store.put(CONFIG, config).document,
        "layers": [layer.blob.document for layer in layers],
        "annotations": {"likewise.bundle": parts.labels["likewise.bundle"]},
    }
    return store.put(MANIFEST, manifest)


def _how_to_run(parts: Parts) -> dict[str, Any]:
    theirs = parts.base.config.get("config") or {}
    return {
        "User": USER,
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "Env": list(parts.variables),
        "Entrypoint": list(ENTRYPOINT),
        "Cmd": [SERVE],
        "WorkingDir": "/",
        "StopSignal": "SIGTERM",
        "Labels": {**(theirs.get("Labels") or {}), **parts.labels},
    }


def _index(store: Store, made: Sequence[tuple[Parts, Descriptor]]) -> Descriptor:
    if len({parts.platform for parts, _ in made}) != len(made):
        raise WrongUsage("a platform is named twice", remedy="name each --platform once")
    entries = [{**image.document, "platform": parts.platform.document} for parts, image in made]
    return store.put(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
