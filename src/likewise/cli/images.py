"""Commands for container images: `image build`, `push`, `run` and `dockerfile`."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from likewise.cli.arguments import Choice, ModelArgument
from likewise.cli.examples import epilog
from likewise.cli.flags import argument, flag, with_flags
from likewise.cli.screen import Screen
from likewise.core.errors import TargetUnavailable, WrongUsage
from likewise.core.isolation import StopSignal
from likewise.images.build import Built, ImageOptions, Parts, build_image
from likewise.images.containers import find_engine, load, start
from likewise.images.dockerfile import write_dockerfile
from likewise.images.export import write_layout
from likewise.images.oci import platform_named
from likewise.images.store import Store

POLL_S = 1.0  # how often to check whether a container still runs
image = typer.Typer(
    name="image", help="Build container images without a Docker daemon, and push or run them.", no_args_is_help=True
)

Name = Annotated[str, argument("NAME:TAG", "An image built with `likewise image build` on this machine.")]
ContainerProgram = Annotated[
    str | None,
    flag(
        "--with PROGRAM",
        "Program that runs the container: docker or podman; by default docker if it responds, else podman.",
    ),
]


def build(
    model: ModelArgument,
    tag: Annotated[str, flag("--tag -t NAME:TAG", "Local name of the image.")],
    oci: Annotated[Path | None, flag("--oci DIR", "Also write the image as an OCI layout to a new folder.")] = None,
    *,
    options: ImageOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Build an image of MODEL: base image, locked environment, bundle. The same inputs give the same digest."""
    bundle, options = choice.find(model, screen.note), replace(options, created=_source_date_epoch())
    with screen.working():
        built = build_image(bundle, tag, bundle.spec(), options, report=screen.note)
    if oci is not None:
        write_layout(Store(), built.name, oci)
    screen.result(_document(built, oci), "Image", _facts(built, oci))


def push(
    name: Name,
    to: Annotated[
        str,
        argument(
            "REGISTRY/NAME[:TAG]",
            "Where to push; for Amazon ECR, ecr:/REGION/NAME[:TAG]. The tag defaults to the build digest.",
        ),
    ],
    *,
    screen: Screen,
) -> None:
    """Push an image to a registry. Layers that the registry already has are skipped; interrupted uploads resume."""
    start_time = time.perf_counter()
    with screen.working():
        if to.startswith("ecr:"):
            from likewise.targets.sagemaker.ecr import push as push_to_ecr  # the extra `aws`

            pushed = push_to_ecr(name, to, screen.note)
        else:
            from likewise.images.push import push_image  # the extra `images`

            pushed = push_image(name, to, report=screen.note)
    seconds = time.perf_counter() - start_time
    document = {"name": pushed.name, "digest": pushed.digest, "sent_bytes": pushed.sent_bytes, "blobs": pushed.blobs}
    counts = ", ".join(f"{count} {outcome}" for outcome, count in pushed.blobs.items() if count)
    facts = [("name", pushed.name), ("pinned", pushed.pinned), ("sent", f"{pushed.sent_bytes / 1e6:.1f} MB; {counts}")]
    screen.result({**document, "pinned": pushed.pinned, "seconds": seconds}, "Pushed", facts)


def run(
    name: Name,
    port: Annotated[int, flag("--port -p", "Port of this machine that serves the model.", min=1, max=65535)] = 5000,
    program: ContainerProgram = None,
    network: Annotated[
        str | None,
        flag("--network NAME", "Container network; use `host` if this machine does not support container networks."),
    ] = None,
    option: Annotated[
        list[str] | None,
        flag("--option OPTION", "Extra option for `docker run` or `podman run`, such as --memory=2g. Repeatable."),
    ] = None,
    detach: Annotated[bool, flag("--detach -d", "Leave the container running and exit.")] = False,
    *,
    screen: Screen,
) -> None:
    """Run an image with Docker or Podman, with a read-only root file system, until Ctrl-C or SIGTERM."""
    engine, store = find_engine(program), Store()
    loaded = load(store, name, engine)
    screen.note(f"{loaded} with {engine.program} {engine.version}")
    running = start(engine, loaded, port, network=network, options=option or ())
    facts = [("url", running.url), ("container", running.name), ("ready after", f"{running.seconds:.2f} s")]
    document = {"url": running.url, "container": running.name, "seconds": running.seconds}
    try:
        screen.result(document, "Running", [*facts, *([("stop", running.stop_line)] if detach else [])])
        while not detach and running.alive():
            time.sleep(POLL_S)
        if not detach:
            raise TargetUnavailable(
                f"the container has exited by itself; its log ends:\n{running.log()}",
                remedy="correct the cause given in the log",
            )
    except StopSignal:  # the usual end, unless the container was to remain
        running.stop()
        if detach:
            raise
    except BaseException:
        running.stop()
        raise


def dockerfile(
    model: ModelArgument,
    output: Annotated[Path, flag("--output -o DIR", "Folder to create.")],
    options_platforms: Annotated[
        str, flag("--platform PLATFORM", "Platform of the image: linux/amd64 or linux/arm64.")
    ] = "linux/amd64",
    *,
    options: ImageOptions,
    choice: Choice,
    screen: Screen,
) -> None:
    """Write a Dockerfile and the layers that it adds, to build the image with Docker or Podman."""
    bundle = choice.find(model, screen.note)
    options = replace(options, platforms=(platform_named(options_platforms),), created=_source_date_epoch())
    parts = write_dockerfile(bundle, output, bundle.spec(), options, report=screen.note)
    lines = [("folder", str(output)), ("next", f"docker build -t NAME:TAG {output}"), *_layer_facts(parts)]
    screen.result({"folder": str(output), **_parts_document(parts)}, "Dockerfile", lines)


for command in (build, push, run, dockerfile):
    image.command(epilog=epilog(command.__name__))(with_flags(command))


def _source_date_epoch() -> int:
    """The image's creation time, in seconds since 1970: SOURCE_DATE_EPOCH (see reproducible-builds.org), else 0."""
    text = os.environ.get("SOURCE_DATE_EPOCH") or "0"
    if not text.isdecimal():
        raise WrongUsage(
            f"SOURCE_DATE_EPOCH is {text!r}, which is not a number of seconds", remedy="correct or unset the variable"
        )
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
    layers = {"environment": parts.environment, "bundle": parts.bundle}
    return {
        "platform": str(parts.platform),
        "base": {"name": parts.base.name, "digest": parts.base.digest},
        "engine": parts.engine.name,
        "labels": parts.labels,
        "layers": {name: {**part.layer.blob.document, "made": part.made} for name, part in layers.items()},
    }


def _facts(built: Built, oci: Path | None) -> list[tuple[str, str]]:
    lines = [("name", built.name), ("digest", built.image.digest)]
    for parts in built.parts:
        lines += [("platform", f"{parts.platform}, engine {parts.engine.name}"), *_layer_facts(parts)]
    lines += [("time", f"{built.seconds:.1f} s"), ("next", f"likewise image run {built.name} -p 5555")]
    return [*lines, ("layout", str(oci))] if oci is not None else lines


def _layer_facts(parts: Parts) -> list[tuple[str, str]]:
    base = sum(layer.blob.size for layer in parts.base.layers)
    lines = [("base", f"{parts.base.name}, {base / 1e6:.1f} MB compressed")]
    for name, part in (("environment", parts.environment), ("bundle", parts.bundle)):
        origin = "built" if part.made else "cached"
        lines.append((name, f"{part.layer.blob.size / 1e6:.1f} MB compressed, {origin}"))
    return lines
