"""`--env`: runs the command again in an environment with the versions that the model was logged with."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from likewise import api
from likewise.core.stdout import release_stdout

INSIDE = "LIKEWISE_ENVIRONMENT"  # the environment that a command has been started in
_EXTRAS: dict[str, tuple[str, ...]] = {
    "spark": ("spark",),
    "ray": ("ray",),
    "ray-serve": ("ray",),
    "container": ("images",),
    "image": ("images",),
    "sagemaker": ("aws", "images"),
    "s3": ("aws",),
}


def enter(
    model: str, *, engine: str | None = None, trust: bool, allow_versions: bool, report: Callable[[str], None]
) -> None:
    """Replace this process by the same command in the environment of `model`; returns if it runs there already.

    Returns after a line for the user if the engine needs none of the model's libraries.  Raises as `api.environment`.
    """
    if (inside := os.environ.pop(INSIDE, "")) and Path(inside) == Path(sys.prefix):
        return
    python = api.environment(
        model,
        engine=engine,
        trust=trust,
        allow_versions=allow_versions,
        extras=_extras(sys.argv[1:]),
        report=report,
    )
    if python is None:
        report("--env has no effect: the engine does not use the libraries that the model was logged with")
        return
    folder = python.parents[1]
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    # a warning of MLflow 2 about its own imports, which a user of it can do nothing about
    warnings = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:pkg_resources is deprecated")))
    own = {"VIRTUAL_ENV": str(folder), "PATH": path, "PYTHONWARNINGS": warnings, INSIDE: str(folder)}
    release_stdout()  # so that descriptor 1 is stdout again
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(python, [str(python), "-P", "-m", "likewise.cli", *sys.argv[1:]], {**os.environ, **own})  # noqa: S606  no shell


def _extras(words: Iterable[str]) -> list[str]:
    """The extras of Likewise that a command with these arguments needs: `--runner spark`, `--to ray-serve`, `s3://…`."""
    named = {part.partition(":")[0] for word in words for part in (word, word.partition("=")[2])}
    return sorted({extra for name in named for extra in _EXTRAS.get(name, ())})
