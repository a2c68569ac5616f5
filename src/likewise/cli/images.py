"""`image build`, `push`, `run`, `dockerfile`: container images without a daemon."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from likewise import api
from likewise.cli.models import Model, TrustFlag
from likewise.cli.options import EngineName, Exact, Precision, asked_precision, described
from likewise.cli.screen import Json, Screen
from likewise.core.errors import WrongUsage
from likewise.engine.options import EngineOptions
from likewise.images.build import Built, ImageOptions, Parts, build_image
from likewise.images.containers import Running, find_engine, load, start
from likewise.images.dockerfile import write_dockerfile
from likewise.images.export import write_layout
from likewise.images.oci import platform_named
from likewise.images.store import Store

LOOK_S = 1.0  # how often to look whether a container still runs
image = typer.Typer(name="image", help="Container images, assembled without a daemon.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME:TAG", help="An image that was built here.")]
Base = Annotated[str, typer.Option(metavar="IMAGE", help=described(ImageOptions, "base"))]
Wheels = Annotated[list[Path] | None, typer.Option("--wheels", metavar="DIR", help=described(ImageOptions, "wheels"))]
Lock = Annotated[Path | None, typer.Option("--lock", metavar="FILE", help=described(ImageOptions, "lock"))]
Fresh = Annotated[bool, typer.Option("--pull", help=described(ImageOptions, "fresh"))]
With = Annotated[str | None, typer.Option("--with", metavar="PROGRAM", help="docker or podman; what answers first.")]
_DEFAULTS = ImageOptions()
_platform = described(ImageOptions, "platforms")


@image.command()
def build(
    model: Model,
    tag: Annotated[str, typer.Option("--tag", "-t", metavar="NAME:TAG", help="What it is called here.")],
    platform: Annotated[list[str] | None, typer.Option(metavar="PLATFORM", help=_platform)] = None,
    base: Base = _DEFAULTS.base,
    oci: Annotated[
        Path | None,
        typer.Option("--oci", metavar="DIR", help="Write it as an OCI image layout too, into a new folder."),
    ] = None,
    wheels: Wheels = None,
    lock: Lock = None,
    pull: Fresh = False,
    engine: EngineName = None,
    precision: Precision = None,
    exact: Exact = False,
    trust: TrustFlag = False,
    json: Json = False,
) -> None:
    """Assemble an image of MODEL: base, locked environment, bundle. The same inputs give the same digest."""
    screen = Screen(json)
    found = api.find(model, trust=trust, report=screen.note)
    choice = EngineOptions(engine, asked_precision(precision, exact))
    options = _options(platform, base, wheels, lock, pull, choice, found.trust.allows_bundle(found))
    built = build_image(found, tag, options, report=screen.note)
    if oci is not None:
        write_layout(Store(), built.name, oci)
    screen.result(_document(built, oci), "Image", _facts(built, oci))


@image.command()
def push(
    name: Name,
    to: Annotated[
        str,
        typer.Argument(
            metavar="REGISTRY/NAME[:TAG]", help="Or ecr:/REGION/NAME[:TAG]. Without a tag, it is the bundle's digest."
        ),
    ],
    json: Json = False,
) -> None:
    """Send an image to a registry; layers that it has already are not sent, a cut is gone on from."""
    screen, begun = Screen(json), time.perf_counter()
    if to.startswith("ecr:"):
        from likewise.targets.sagemaker.ecr import push as push_to_ecr  # the extra `aws`

        pushed = push_to_ecr(name, to, screen.note)
    else:
        from likewise.images.push import push_image  # the extra `images`

        pushed = push_image(name, to, report=screen.note)
    seconds = time.perf_counter() - begun
    document = {"name": pushed.name, "digest": pushed.digest, "sent_bytes": pushed.sent_bytes, "blobs": pushed.blobs}
    counts = ", ".join(f"{count} {how}" for how, count in pushed.blobs.items() if count)
    facts = [("name", pushed.name), ("pinned", pushed.pinned), ("sent", f"{pushed.sent_bytes / 1e6:.1f} MB; {counts}")]
    screen.result({**document, "pinned": pushed.pinned, "seconds": seconds}, "Pushed", facts)


@image.command()
def run(
    name: Name,
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="Port of this machine.")] = 5000,
    program: With = None,
    network: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="host, where containers can have no network of their own."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="OPTION", help="More for its run: --memory=2g. Repeatable.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave it running.")] = False,
    json: Json = False,
) -> None:
    """Run an image with Docker or Podman, on a read-only disk, until Ctrl-C or SIGTERM."""
    screen, engine, store = Screen(json), find_engine(program), Store()
    loaded = load(store, name, engine)
    screen.note(f"{loaded} with {engine.program} {engine.version}")
    running = start(engine, loaded, port, network=network, more=option or ())
    facts = [("url", running.url), ("container", running.name), ("ready after", f"{running.seconds:.2f} s")]
    document = {"url": running.url, "container": running.name, "seconds": running.seconds}
    screen.result(document, "Running", [*facts, *([("stop", running.stop_line)] if detach else [])])
    if not detach:
        _until_stopped(running)


@image.command()
def dockerfile(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to make.")],
    platform: Annotated[str, typer.Option(metavar="PLATFORM", help="linux/amd64 or linux/arm64.")] = "linux/amd64",
    base: Base = _DEFAULTS.base,
    wheels: Wheels = None,
    lock: Lock = None,
    pull: Fresh = False,
    engine: EngineName = None,
    precision: Precision = None,
    exact: Exact = False,
    trust: TrustFlag = False,
    json: Json = False,
) -> None:
    """Write a Dockerfile and the layers that it adds, for those who build with Docker or Podman."""
    screen = Screen(json)
    found = api.find(model, trust=trust, report=screen.note)
    choice = EngineOptions(engine, asked_precision(precision, exact))
    options = _options([platform], base, wheels, lock, pull, choice, found.trust.allows_bundle(found))
    parts = write_dockerfile(found, output, options, report=screen.note)
    lines = [("folder", str(output)), ("then", f"docker build -t NAME:TAG {output}"), *_layer_facts(parts)]
    screen.result({"folder": str(output), **_parts_document(parts)}, "Dockerfile", lines)


def _options(
    platforms: list[str] | None,
    base: str,
    wheels: list[Path] | None,
    lock: Path | None,
    fresh: bool,
    choice: EngineOptions,
    trust: bool,
) -> ImageOptions:
    chosen = tuple(platform_named(each) for each in platforms or ()) or _DEFAULTS.platforms
    if missing := [each for each in wheels or () if not each.is_dir()]:
        raise WrongUsage(f"there is no folder {missing[0]}", remedy="--wheels names a folder of wheels")
    return ImageOptions(
        base=base,
        platforms=chosen,
        choice=choice,
        trust=trust,
        wheels=tuple(wheels or ()),
        lock=lock,
        fresh=fresh,
        created=_epoch(),
    )


def _epoch() -> int:
    """Source: the specification of SOURCE_DATE_EPOCH, reproducible-builds."""
    text = os.environ.get("SOURCE_DATE_EPOCH") or "0"
    if not text.isdecimal():
        raise WrongUsage(f"SOURCE_DATE_EPOCH is {text!r}, and no number of seconds", remedy="correct or unset it")
    return int(text)


def _until_stopped(running: Running) -> None:
    try:
        while running.alive():
            time.sleep(LOOK_S)
    finally:
        running.stop()


def _document(built: Built, oci: Path | None) -> dict[str, object]:
    return {
        "name": built.name,
        "digest": built.image.digest,
        "oci": None if oci is None else str(oci),
        "seconds": built.seconds,
        "platforms": [_parts_document(parts) for parts in built.parts],
    }


def _parts_document(parts: Parts) -> dict[str, object]:
    held = {"environment": parts.environment, "bundle": parts.bundle}
    return {
        "platform": str(parts.platform),
        "base": {"name": parts.base.name, "digest": parts.base.digest},
        "engine": parts.engine.name,
        "labels": parts.labels,
        "layers": {name: {**part.layer.blob.document, "made": part.made} for name, part in held.items()},
    }


def _facts(built: Built, oci: Path | None) -> list[tuple[str, str]]:
    lines = [("name", built.name), ("digest", built.image.digest)]
    for parts in built.parts:
        lines += [("platform", f"{parts.platform}, engine {parts.engine.name}"), *_layer_facts(parts)]
    lines += [("took", f"{built.seconds:.1f} s"), ("run it", f"likewise image run {built.name} -p 5555")]
    return [*lines, ("layout", str(oci))] if oci is not None else lines


def _layer_facts(parts: Parts) -> list[tuple[str, str]]:
    base = sum(layer.blob.size for layer in parts.base.layers)
    lines = [("base", f"{parts.base.name}, {base / 1e6:.1f} MB to send")]
    for name, part in (("environment", parts.environment), ("bundle", parts.bundle)):
        how = "made now" if part.made else "as it was"
        lines.append((name, f"{part.layer.blob.size / 1e6:.1f} MB to send, {how}"))
    return lines
