"""Builds an image from a bundle: three layers, a configuration, a manifest, and a name in the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from likewise.bundles.folder import regular_files
from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.digests import canonical_json, sha256_bytes
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option
from likewise.core.spec import ModelSpec
from likewise.engine.kinds import EngineKind, kind_of, runs_code
from likewise.engine.load import allowed_engines
from likewise.images.base import DEFAULT, Base, open_base
from likewise.images.bundled_wheels import bundled_wheels
from likewise.images.environment import BIN, ENTRYPOINT, HOME, SERVE, environment_layer, site
from likewise.images.layers import LayerEntry, files_under, make_layer
from likewise.images.oci import CONFIG, INDEX, MANIFEST, PLATFORMS, Descriptor, Platform, local_name, platform_named
from likewise.images.store import Part, Store
from likewise.images.wheels import Wheels, markers, pins
from likewise.shipping.environment import OURS, closure
from likewise.shipping.payload import requirements_of

PORT = 8080
USER = "65532:65532"  # an unprivileged user without an account; any other works as well
BUNDLE_LEVEL = 0  # gzip level: compression saves at most a tenth of the weights and takes five times the build
OnProgress = Callable[[str], None]


def silent(text: str) -> None:
    """An `OnProgress` that discards its messages."""


def _platforms(names: Iterable[str]) -> tuple[Platform, ...]:
    return tuple(platform_named(name) for name in names)


def _folders(names: Iterable[str]) -> tuple[Path, ...]:
    if missing := [name for name in names if not Path(name).is_dir()]:
        raise WrongUsage(f"no folder {missing[0]}", remedy="pass an existing folder of wheels to --wheels")
    return tuple(map(Path, names))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """Options of an image build; each field's `metadata["help"]` is its help text."""

    base: str = option(
        DEFAULT,
        "Base image with Python: an image in a registry, a folder with an OCI layout, or a tar file.",
        "--base IMAGE",
    )
    platforms: tuple[Platform, ...] = option(
        (PLATFORMS["linux/amd64"],),
        "linux/amd64 (default) or linux/arm64. Repeatable, for one image that runs on both.",
        "--platform PLATFORM",
        parse=_platforms,
    )
    wheels: tuple[Path, ...] = option(
        (), "Folder of wheels that are not in a package index. Repeatable.", "--wheels DIR", parse=_folders
    )
    lock: Path | None = option(
        None, "Requirements file with hashes of all packages. Default: the installed versions.", "--lock FILE"
    )
    telemetry: bool = option(
        False, "Include what exports traces, if a container's environment requests them.", "--telemetry"
    )
    fresh: bool = option(False, "Pull the base again even if it is cached.", "--pull")
    created: int = option(0, "Creation time recorded in the image, in seconds since 1970.")


@dataclass(frozen=True, slots=True)
class Parts:
    """The layers, labels and environment variables of an image for one platform."""

    platform: Platform
    base: Base
    environment: Part
    bundle: Part
    engine: EngineEntry
    labels: dict[str, str]
    variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """The result of a build: an image in the store."""

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
    """Build the image `name` from `bundle`, with the engine of `model`; several platforms become an index.

    Raises WrongUsage, CodeNotTrusted, EngineUnavailable, MissingExtra, InputNotFound, InputInvalid, TargetUnavailable,
    BundleInvalid, BundleTampered.
    """
    start, options, store = time.perf_counter(), options or ImageOptions(), store or Store()
    tag = str(local_name(name))
    with store.used():
        images = []
        for platform in options.platforms:
            parts = make_parts(bundle, model, platform, options, store, report)
            images.append((parts, assemble(store, parts, options.created)))
        image = images[0][1] if len(images) == 1 else _index(store, images)
        store.name(tag, image)
    return Built(tag, image, tuple(parts for parts, _ in images), time.perf_counter() - start)


def make_parts(
    bundle: Bundle, model: ModelSpec, platform: Platform, options: ImageOptions, store: Store, report: OnProgress
) -> Parts:
    """The layers for one platform, built unless they are cached."""
    engine = allowed_engines(bundle.manifest, model)[0]
    kind = kind_of(engine.name)
    requirements = [*requirements_of(bundle, engine), *(["likewise[telemetry]"] if options.telemetry else [])]
    base = open_base(store, options.base, platform, fresh=options.fresh)
    wheels = Wheels(store, platform, base.minor, base.glibc)
    pinned = pins(requirements, platform, base.minor, unused=kind.image.dependencies)
    report(f"{platform}: {len(pinned)} distributions for the engine {engine.name}, Python 3.{base.minor}")
    own = bundled_wheels(bundle, _reserved(kind, platform, base.minor)) if kind.runs_code else {}
    locked = wheels.locked(pinned, options.wheels, options.lock, own)
    environment = environment_layer(base, wheels, locked, left_out=kind.image.files, bundled=own)
    inputs = {"bundle": sha256_bytes(bundle.manifest.dump()), "platform": str(platform), "level": BUNDLE_LEVEL}
    left_out = list(kind.unread(bundle))
    bundle_layer = store.layer(
        {**inputs, "left_out": left_out},
        lambda: make_layer(store, _bundle_entries(bundle, left_out), platform, level=BUNDLE_LEVEL),
    )
    labels = _labels(bundle, base, engine)
    return Parts(platform, base, environment, bundle_layer, engine, labels, _variables(base, engine, model))


def _reserved(kind: EngineKind, platform: Platform, minor: int) -> set[str]:
    """The distributions that Likewise and the engine need, which no wheel of a bundle may replace."""
    return {OURS, *closure([OURS, *kind.requirements], markers=markers(platform, minor))}


def _bundle_entries(bundle: Bundle, left_out: Sequence[str]) -> Iterator[LayerEntry]:
    files = ((name, path) for name, path in regular_files(bundle.path) if name not in left_out)
    yield from files_under(f"{HOME}/bundle", files)


def _labels(bundle: Bundle, base: Base, engine: EngineEntry) -> dict[str, str]:
    """Labels that describe the image without revealing the source of the model."""
    from likewise.server.description.form_schemas import rows_schema

    return {
        "org.opencontainers.image.title": "likewise",
        "org.opencontainers.image.base.name": Path(base.name).name if Path(base.name).exists() else base.name,
        "org.opencontainers.image.base.digest": base.digest,
        "likewise.bundle": bundle.digest,
        "likewise.build": bundle.build,
        "likewise.engine": engine.name,
        "likewise.signature": canonical_json(bundle.manifest.signature_raw).decode(),
        "likewise.schema": canonical_json(rows_schema(bundle.signature)).decode(),
        "com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true",
    }


def _variables(base: Base, engine: EngineEntry, model: ModelSpec) -> tuple[str, ...]:
    base_env = dict(entry.partition("=")[::2] for entry in base.config.get("config", {}).get("Env") or ())
    path = base_env.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    own_env = {
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
    return tuple(f"{name}={value}" for name, value in {**base_env, **own_env}.items())


def assemble(store: Store, parts: Parts, created: int) -> Descriptor:
    """Store the configuration and the manifest of one platform's image. Source: the OCI image specification."""
    base_config = dict(parts.base.config)
    created_at = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    added = {"environment": parts.environment.layer, "bundle": parts.bundle.layer}
    layers = [*parts.base.layers, *added.values()]
    history = [{"created": created_at, "created_by": f"likewise: {name}"} for name in added]
    config = {
        **{key: value for key, value in base_config.items() if key in ("variant", "os.version", "os.features")},
        **parts.platform.document,
        "created": created_at,
        "config": {**(base_config.get("config") or {}), **_runtime_config(parts)},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [*base_config.get("history", []), *history],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": store.put(CONFIG, config).document,
        "layers": [layer.blob.document for layer in layers],
        "annotations": {name: parts.labels[name] for name in ("likewise.bundle", "likewise.build")},
    }
    return store.put(MANIFEST, manifest)


def _runtime_config(parts: Parts) -> dict[str, Any]:
    base_labels = (parts.base.config.get("config") or {}).get("Labels") or {}
    return {
        "User": USER,
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "Env": list(parts.variables),
        "Entrypoint": list(ENTRYPOINT),
        "Cmd": [SERVE],
        "WorkingDir": "/",
        "StopSignal": "SIGTERM",
        "Labels": {**base_labels, **parts.labels},
    }


def _index(store: Store, images: Sequence[tuple[Parts, Descriptor]]) -> Descriptor:
    if len({parts.platform for parts, _ in images}) != len(images):
        raise WrongUsage("a platform is given twice", remedy="give each --platform once")
    entries = [{**image.document, "platform": parts.platform.document} for parts, image in images]
    return store.put(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
