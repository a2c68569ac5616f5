"""The registry of runners, which execute batch jobs. They are imported on demand; entry points add further ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name

from likewise.batch.job import JobReport, Progress, ScoreJob
from likewise.batch.layout import check_name
from likewise.batch.score_options import ScoreOptions
from likewise.core.engine import Engine
from likewise.core.errors import OutputRefused, WrongUsage
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.telemetry.jobs import job_span

Runner = Callable[[ScoreJob], JobReport]

RUNNERS: dict[str, str] = {
    "local": "likewise.batch.local:run",
    "spark": "likewise.targets.spark.runner:run",
    "ray": "likewise.targets.ray.runner:run",
}
GROUP = "likewise.runners"  # entry point group of other packages: the name of a runner and a `Runner`


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
    """Score the rows of `source` into `output`, which appears under its final name only when it is complete.

    source: a file, a folder or a glob pattern, local or `s3://`.  model: for runners that open it on other machines.
    Raises InputNotFound, InputInvalid, OutputRefused, ModelFailed, Interrupted (Ctrl-C), WrongUsage and MissingExtra;
    the same call then resumes.  TooManyQuarantined and NothingScored are raised after everything is written.
    """
    options = options or ScoreOptions()
    run = runner(options.runner)
    path, progress = output_path(str(output)), progress or (lambda _: None)
    with job_span(runner=options.runner, bundle=bundle_digest) as span:
        job = ScoreJob(engine, bundle_digest, signature, str(source), path, options, progress, model, span.traceparent)
        report = run(job)
        span.attributes |= {
            "rows": report.rows_in,
            "rows_quarantined": report.rows_quarantined,
            "tokens": report.tokens,
            "engine": report.engine,
        }
    return report


def names() -> tuple[str, ...]:
    """The names of all runners, the built-in ones first."""
    return tuple(_known())


def _known() -> dict[str, str]:
    """The import path of each runner by name; entry points cannot replace the built-in ones, which come first."""
    added = {entry.name: entry.value for entry in sorted(entry_points(group=GROUP))}
    return RUNNERS | added | RUNNERS


def runner(name: str) -> Runner:
    """The runner's function; WrongUsage for an unknown name."""
    known = _known()
    if name not in known:
        raise WrongUsage(f"unknown runner {name!r}", remedy=f"use --runner with one of: {', '.join(known)}")
    run: Runner = resolve_name(known[name])
    return run


def output_path(output: str) -> Path:
    """The output's path; OutputRefused for a URL, even if a Path has removed one of its slashes.

    WrongUsage for a file of an unknown format, or if it is empty.
    """
    if not output:
        raise WrongUsage("OUTPUT is empty", remedy="name a .csv, .jsonl or .parquet file, or a folder")
    if re.match(r"[a-zA-Z][\w+.-]+:/", output):
        raise OutputRefused(
            f"{output}: jobs write to local folders only",
            remedy="name a local OUTPUT, then copy it, for example with: aws s3 cp --recursive",
        )
    check_name(output)
    return Path(output)
