"""Writes a Dockerfile and the same layers as `build`, for users who build with Docker or Podman."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from likewise.bundles.open import Bundle
from likewise.core.errors import OutputRefused, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.images.build import PORT, USER, ImageOptions, OnProgress, Parts, make_parts, silent
from likewise.images.environment import ENTRYPOINT, SERVE
from likewise.images.export import new_folder
from likewise.images.store import Store


def write_dockerfile(
    bundle: Bundle,
    folder: Path,
    model: ModelSpec,
    options: ImageOptions | None = None,
    *,
    store: Store | None = None,
    report: OnProgress = silent,
) -> Parts:
    """Write `Dockerfile`, `environment.tar.gz` and `bundle.tar.gz` into the new or empty `folder`.

    `docker build` or `podman build` needs only the base in addition. Raises OutputRefused, WrongUsage (several
    platforms), and the errors of `build_image`.
    """
    options, store = options or ImageOptions(), store or Store()
    if len(options.platforms) != 1:
        raise WrongUsage("a Dockerfile is for one platform", remedy="write one folder per platform")
    if folder.exists() and any(folder.iterdir()):
        raise OutputRefused(f"{folder} is not empty", remedy="use a new folder")
    with store.used():
        parts = make_parts(bundle, model, options.platforms[0], options, store, report)
        with new_folder(folder) as stage:
            for name, part in (("environment", parts.environment), ("bundle", parts.bundle)):
                shutil.copyfile(store.path(part.layer.blob.digest), stage / f"{name}.tar.gz")
            (stage / "Dockerfile").write_text(_text(parts))
    return parts


def _text(parts: Parts) -> str:
    """The Dockerfile's text; ADD unpacks an archive and preserves its owners, modes and times."""
    base_env = (parts.base.config.get("config") or {}).get("Env") or ()
    base = "base" if Path(parts.base.name).exists() else parts.base.name
    lines = [
        f"# Needs only the base image, which must have Python 3.{parts.base.minor} at {parts.base.python}.",
        f"ARG BASE={base}",
        f"FROM --platform={parts.platform} ${{BASE}}",
        "ADD environment.tar.gz /",
        "ADD bundle.tar.gz /",
        *(f"ENV {_quoted(*each.partition('=')[::2])}" for each in parts.variables if each not in base_env),
        *(f"LABEL {_quoted(name, value)}" for name, value in sorted(parts.labels.items())),
        f"USER {USER}",
        "WORKDIR /",
        f"EXPOSE {PORT}",
        "STOPSIGNAL SIGTERM",
        f"ENTRYPOINT {json.dumps(list(ENTRYPOINT))}",
        f"CMD {json.dumps([SERVE])}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(name: str, value: str) -> str:
    """`NAME="value"` with the characters escaped that Dockerfiles treat specially."""
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'{name}="{text}"'
