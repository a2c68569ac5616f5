"""The same image for those who build with Docker: a Dockerfile beside the very layers that we would assemble."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from likewise.bundles.open import Bundle
from likewise.core.errors import OutputRefused, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.images.build import PORT, USER, ImageOptions, OnProgress, Parts, make_parts, silent
from likewise.images.environment import ENTRYPOINT, SERVE
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
    """`Dockerfile`, `environment.tar.gz` and `bundle.tar.gz` in the new or empty `folder`.

    `docker build` or `podman build` there needs nothing but the base. Raises OutputRefused, WrongUsage (several
    platforms, or a base that no Dockerfile can name), and what `build_image` does.
    """
    options, store = options or ImageOptions(), store or Store()
    if len(options.platforms) != 1:
        raise WrongUsage("a Dockerfile here is for one platform", remedy="write one folder a platform")
    if folder.exists() and any(folder.iterdir()):
        raise OutputRefused(f"{folder} is not empty", remedy="name a new folder")
    with store.used():
        parts = make_parts(bundle, model, options.platforms[0], options, store, report)
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in (("environment", parts.environment), ("bundle", parts.bundle)):
            shutil.copyfile(store.path(part.layer.blob.digest), folder / f"{name}.tar.gz")
    (folder / "Dockerfile").write_text(_text(parts))
    return parts


def _text(parts: Parts) -> str:
    """ADD unpacks an archive with owners, modes and times as they stand in it."""
    theirs = (parts.base.config.get("config") or {}).get("Env") or ()
    base = "base" if Path(parts.base.name).exists() else parts.base.name
    lines = [
        f"# Needs nothing but the base, which must have Python 3.{parts.base.minor} as {parts.base.python}.",
        f"ARG BASE={base}",
        f"FROM --platform={parts.platform} ${{BASE}}",
        "ADD environment.tar.gz /",
        "ADD bundle.tar.gz /",
        *(f"ENV {_quoted(*each.partition('=')[::2])}" for each in parts.variables if each not in theirs),
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
    """Quoted so that nothing in `value` means anything to the builder."""
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'{name}="{text}"'
