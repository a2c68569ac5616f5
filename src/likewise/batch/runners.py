"""Runners by name: one line each, imported when it is asked for; packages add theirs by entry points."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name

from likewise.batch.job import JobReport, Progress, ScoreJob
from likewise.batch.score_options import ScoreOptions
from likewise.core.engine import Engine
from likewise.core.errors import OutputRefused, WrongUsage
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec

Runner = Callable[[ScoreJob], JobReport]

RUNNERS: dict[str, str] = {"local": "likewise.batch.local:run", "spark": "likewise.targets.spark.runner:run"}
GROUP = "likewise.runners"  # entry points of other packages: a name and a function from Job to Report


def score(
    engine: Engine,
    bundle_digest: str,
    signature: Signature,
    source: str | Path,
    output: str | Path,
    options: ScoreOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
    model: ModelSpec | None = None,
) -> JobReport:
    """Score the rows of `source` into `output`, which appears under its name only when it is whole.

    source: a file, a folder, a glob, or the like at `s3://`.  model: for runners that open it elsewhere.
    Raises InputNotFound, InputInvalid, OutputRefused, ModelFailed, Interrupted (Ctrl-C), WrongUsage and MissingExtra;
    the same call goes on where chunks of the job are done.  TooManyQuarantined is raised once everything is written.
    """
    options = options or ScoreOptions()
    run = runner(options.runner)
    place = _folder_or_file(str(output))
    return run(
        ScoreJob(engine, bundle_digest, signature, str(source), place, options, progress or (lambda _: None), model)
    )


def names() -> tuple[str, ...]:
    """Every runner's name, the built-in ones first."""
    return tuple(_known())


def _known() -> dict[str, str]:
    """By name, where its function is; the built-in ones first, which nobody replaces."""
    added = {entry.name: entry.value for entry in sorted(entry_points(group=GROUP))}
    return RUNNERS | added | RUNNERS


def runner(name: str) -> Runner:
    """The runner's function; WrongUsage for an unknown name."""
    known = _known()
    if name not in known:
        raise WrongUsage(f"there is no runner {name!r}", remedy=f"--runner with one of: {', '.join(known)}")
    run: Runner = resolve_name(known[name])
    return run


def _folder_or_file(output: str) -> Path:
    """A path; OutputRefused for an address, also where a Path has taken one of its slashes."""
    if re.match(r"[a-zA-Z][\w+.-]+:/", output):
        raise OutputRefused(
            f"{output}: a job writes to folders of this machine only",
            remedy="name a local OUTPUT, and copy it when it is done, for example with: aws s3 cp --recursive",
        )
    return Path(output)
