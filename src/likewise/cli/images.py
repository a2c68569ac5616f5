"""`image build`, `push`, `run`, `dockerfile`: container images without a daemon."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from likewise.cli.arguments import Choice, ModelArgument
from likewise.cli.flags import argument, flag, with_flags
from likewise.cli.screen import Screen
from likewise.core.errors import WrongUsage
from likewise.images.build import Built, ImageOptions, Parts, build_image
from likewise.images.containers import find_engine, load, start
from likewise.images.dockerfile import write_dockerfile
from likewise.images.export import write_layout
from likewise.images.oci import platform_named
from likewise.images.store import Store

LOOK_S = 1.0  # how often to look whether a container still runs
image = typer.Typer(name="image", help="Container images, assembled without a daemon.", no_args_is_help=True)

Name = Annotated[str, argument("NAME:TAG", "An image that was built here.")]
With = Annotated[str | None, flag("--with PROGRAM", "docker or podman; what answers first.")]


def build(
    model: ModelArgument,
    tag: Annotated[str, flag("--tag -t NAME:TAG", "What it is called here.")],
    oci: Annotated[Path | None, flag("--oci DIR", "Write it as an OCI image layout too, into a new folder.")] = None,
    *,
    options: ImageOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Assemble an image of MODEL: base, locked environment, bundle. The same inputs give the same digest."""
    found = choice.find(model, screen.note)
    built = build_image(found, tag, found.spec(), replace(options, created=_epoch()), report=screen.note)
    if oci is not None:
        write_layout(Store(), built.name, oci)
    screen.result(_document(built, oci), "Image", _facts(built, oci))


def push(
    name: Name,
    to: Annotated[
        str, argument("REGISTRY/NAME[:TAG]", "Or ecr:/REGION/NAME[:TAG]. Without a tag, it is the bundle's digest.")
    ],
    *,
    screen: Screen,
) -> None:
    """Send an image to a registry; layers that it has already are not sent, a cut is gone on from."""
    begun = time.perf_counter()
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


def run(
    name: Name,
    port: Annotated[int, flag("--port -p", "Port of this machine.", min=1, max=65535)] = 5000,
    program: With = None,
    network: Annotated[
        str | None, flag("--network NAME", "host, where containers can have no network of their own.")
    ] = None,
    option: Annotated[list[str] | None, flag("--option OPTION", "More for its run: --memory=2g. Repeatable.")] = None,
    detach: Annotated[bool, flag("--detach -d", "Leave it running.")] = False,
    *,
    screen: Screen,
) -> None:
    """Run an image with Docker or Podman, on a read-only disk, until Ctrl-C or SIGTERM."""
    engine, store = find_engine(program), Store()
    loaded = load(store, name, engine)
    screen.note(f"{loaded} with {engine.program} {engine.version}")
    running = start(engine, loaded, port, network=network, options=option or ())
    facts = [("url", running.url), ("container", running.name), ("ready after", f"{running.seconds:.2f} s")]
    document = {"url": running.url, "container": running.name, "seconds": running.seconds}
    screen.result(document, "Running", [*facts, *([("stop", running.stop_line)] if detach else [])])
    if detach:
        return
    try:
        while running.alive():
            time.sleep(LOOK_S)
    finally:
        running.stop()


def dockerfile(
    model: ModelArgument,
    output: Annotated[Path, flag("--output -o DIR", "The folder to make.")],
    options_platforms: Annotated[str, flag("--platform PLATFORM", "linux/amd64 or linux/arm64.")] = "linux/amd64",
    *,
    options: ImageOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Write a Dockerfile and the layers that it adds, for those who build with Docker or Podman."""
    found = choice.find(model, screen.note)
    options = replace(options, platforms=(platform_named(options_platforms),), created=_epoch())
    parts = write_dockerfile(found, output, found.spec(), options, report=screen.note)
    lines = [("folder", str(output)), ("then", f"docker build -t NAME:TAG {output}"), *_layer_facts(parts)]
    screen.result({"folder": str(output), **_parts_document(parts)}, "Dockerfile", lines)


for command in (build, push, run, dockerfile):
    image.command()(with_flags(command))


def _epoch() -> int:
    """Source: the specification of SOURCE_DATE_EPOCH, reproducible-builds."""
    text = os.environ.get("SOURCE_DATE_EPOCH") or "0"
    if not text.isdecimal():
        raise WrongUsage(f"SOURCE_DATE_EPOCH is {text!r}, and no number of seconds", remedy="correct or unset it")
    return int(text)


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
