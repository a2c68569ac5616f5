"""The command `demo`: prints what it will do, runs the steps, and prints what they created, with commands to try.

The rehearsal of SageMaker runs only with `--full`: it downloads a base image and packs an environment with its wheels,
which takes minutes, and a container engine that responds to `likewise doctor` may still be unable to run containers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from rich.markup import escape

from likewise.cli.demo_steps import Demo, shown
from likewise.cli.flags import flag
from likewise.cli.screen import Screen, err, visible
from likewise.core.uris import without_secrets
from likewise.doctor import MachineFinding, examine

NEEDS = {
    "Spark": ("pyspark", "Java"),
    "Ray Serve": ("ray",),
    "SageMaker": ("boto3", "moto", "installer", "docker-registry", "Containers"),
}
"""What each optional part needs, by the names of doctor's findings."""

SECONDS = {"Spark": 80, "Ray Serve": 50, "SageMaker": 120}
ALWAYS_S, QUICK_S = 270, 110
"""Estimates for two idle cores of an AMD EPYC without bf16, from a demo of 395 s; the rehearsal's without downloads."""


def demo(
    folder: Annotated[Path, flag("--output -o DIR", "Folder for all that the demo creates.")] = Path("likewise-demo"),
    quick: Annotated[bool, flag("--quick", "Train two layers instead of six, on half of the reviews.")] = False,
    full: Annotated[
        bool, flag("--full", "Also rehearse a deployment on SageMaker in a container; downloads a base image.")
    ] = False,
    rows: Annotated[int, flag("--rows", "Number of rows to score.", min=1)] = 2000,
    tracking_uri: Annotated[
        str | None, flag("--tracking-uri URI", "MLflow store to use instead of a SQLite file in DIR.")
    ] = None,
    base_image: Annotated[
        str | None, flag("--base-image IMAGE", "With --full: base image to use, of a registry or a local archive.")
    ] = None,
    *,
    screen: Screen,
) -> None:
    """Run the example: fine-tune, log, bundle, serve, score, deploy, compare, and delete the deployments.

    MLFLOW_TRACKING_URI and RAY_ADDRESS are not used: the demo has a store and a Ray instance that nothing else uses.
    """
    start = time.perf_counter()
    skipped = missing(examine(), full=full)
    example = Demo(folder, quick, rows, tracking_uri, base_image, skipped)
    for line in plan(example):
        err.print(line, soft_wrap=True)
    example.run()
    seconds = time.perf_counter() - start
    created = example.walk.created
    if screen.as_json:
        screen.json({**example.facts, "seconds": seconds, "made": [asdict(each) for each in created]})
        return
    for line in closing(example, seconds):
        screen.out.print(line, soft_wrap=True)


def missing(findings: Sequence[MachineFinding], *, full: bool) -> dict[str, str]:
    """The parts of NEEDS that do not run here, and why; a rehearsal of SageMaker only runs if `full` is set."""
    lacking = [each for each in findings if each.state != "ok"]
    reasons = {
        part: "; ".join(f"{each.name} is missing: {each.remedy}" for each in lacking if each.name in names)
        for part, names in NEEDS.items()
    }
    if not full:
        reasons["SageMaker"] = "add --full to rehearse it in a container, which downloads a base image"
    return {part: reason for part, reason in reasons.items() if reason}


def plan(example: Demo) -> Iterator[str]:
    """What the demo will do, where, and for how long, as lines of markup."""
    parts = [part for part in NEEDS if part not in example.missing]
    seconds = (QUICK_S if example.quick else ALWAYS_S) + sum(SECONDS[part] for part in parts)
    places = ", ".join(["a background service", *(part for part in parts if part != "Spark")])
    yield "Fine-tunes a classifier, bundles a pipeline that uses it, serves it, scores"
    yield "rows, deploys it, compares all predictions, and deletes the deployments."
    yield f"  [cyan]targets[/cyan] {places}"
    yield f"  [cyan]time[/cyan]    about {max(1, round(seconds / 60))} minutes on two cores that are otherwise idle"
    yield f"  [cyan]folder[/cyan]  {escape(visible(shown(example.folder)))}"
    store = "mlflow.db in this folder" if example.tracking_uri is None else without_secrets(example.tracking_uri)
    yield f"  [cyan]store[/cyan]   {escape(visible(store))} (choose another one with --tracking-uri)"
    for part, reason in example.missing.items():
        yield f"  [yellow]without {part}[/yellow]: {escape(visible(reason))}"


def closing(example: Demo, seconds: float) -> Iterator[str]:
    """What was created, as lines of markup; each command is a line without anything else, to be copied."""
    yield f"\n[bold]Completed in {seconds:.0f} s; nothing is left running.[/bold] To try these commands, first run:\n"
    for command in example.setup:
        yield f"    {escape(visible(command))}"
    for each in example.walk.created:
        about = escape(visible(each.about))
        yield f"\n[bold cyan]{escape(each.what)}[/bold cyan]: {about} [dim]{each.seconds:.1f} s[/dim]"
        yield f"  [dim]{escape(visible(each.where))}[/dim]"
        yield f"    {escape(visible(each.then))}"
