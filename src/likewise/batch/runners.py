"""Runners by name: one line each, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from likewise.batch.job import Job, Progress, Report
from likewise.batch.options import ScoreOptions
from likewise.core.engine import Engine
from likewise.core.errors import WrongUsage
from likewise.core.signature import Signature

RUNNERS: dict[str, str] = {"local": "likewise.batch.local:run"}


def score(
    engine: Engine,
    bundle_digest: str,
    signature: Signature,
    source: str | Path,
    output: str | Path,
    options: ScoreOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Score the rows of `source` into `output`, which appears under its name only when it is whole.

    InputNotFound, InputInvalid, OutputRefused, ModelFailed, Interrupted (Ctrl-C), WrongUsage and MissingExtra leave
    nothing behind; TooManyQuarantined is raised once output and report are written.
    """
    options = options or ScoreOptions()
    job = Job(engine, bundle_digest, signature, Path(source), Path(output), options, progress or _silent)
    return runner(options.runner)(job)


def runner(name: str) -> Callable[[Job], Report]:
    """The runner's function; WrongUsage for an unknown name."""
    if name not in RUNNERS:
        raise WrongUsage(f"there is no runner {name!r}", remedy=f"--runner with one of: {', '.join(RUNNERS)}")
    module, _, attribute = RUNNERS[name].partition(":")
    run: Callable[[Job], Report] = getattr(importlib.import_module(module), attribute)
    return run


def _silent(_: Progress) -> None:
    pass
