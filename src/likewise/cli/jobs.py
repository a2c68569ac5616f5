"""`transform`, `rehearse`: what a target does beside deployments."""

from __future__ import annotations

import os
import subprocess
from dataclasses import asdict
from typing import Annotated

import typer

from likewise import deployments
from likewise.cli.arguments import Choice, ModelArgument
from likewise.cli.flags import argument, flag
from likewise.cli.screen import Screen
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import parse_config
from likewise.targets.base import BATCH


def transform(
    model: ModelArgument,
    source: Annotated[str, argument("INPUT", "s3://bucket/prefix of CSV or JSON lines.")],
    output: Annotated[str, flag("--output -o OUTPUT", "s3://bucket/prefix for `.out` files.")],
    to: Annotated[str, flag("--to -t TARGET", "sagemaker:/REGION")],
    name: Annotated[str, flag("--name NAME", "What the job's name begins with.")] = BATCH,
    config: Annotated[
        list[str] | None, flag("--config -C KEY=VALUE", "An option of the job; nested ones as JSON.")
    ] = None,
    restart: Annotated[bool, flag("--restart", "Run it again though it has completed.")] = False,
    options: Annotated[bool, flag("--options", "Show the job's options, and do nothing.")] = False,
    *,
    choice: Choice,
    screen: Screen,
) -> None:
    """Run a batch job where the data lies. Cut off and run again, it is gone on with; nothing stays but the answers."""
    target = deployments.job_target(to)  # what is wrong is told before the model is bundled
    if options:
        screen.options(f"Options of jobs on {to}", target.job_options())
        return
    done = deployments.job(
        choice.find(model).spec(),
        to,
        source,
        output,
        parse_config(config or []),
        name=name,
        restart=restart,
        on_step=lambda step: screen.note(step.about),
        progress=screen.note,
    )
    facts = [("job", done.id), ("status", done.status), ("output", done.output), ("ran", f"{done.seconds:.0f} s")]
    screen.result(asdict(done), "Transformed", facts)


def rehearse(
    target: Annotated[str, argument("TARGET", "sagemaker:/REGION")],
    command: Annotated[list[str], argument("COMMAND…", "After `--`: what is run there.")],
) -> None:
    """Run COMMAND with TARGET's account on this machine in the place of the real one; its exit code.

    What the command deploys there is gone when it ends: `AWS_ENDPOINT_URL` and credentials of a rehearsal
    are in its environment, for AWS's own tools too.
    """
    screen = Screen()
    with deployments.rehearsal_stage(target) as stage:
        for caution in stage.cautions:
            screen.note(caution)
        screen.note(f"{target} stands at {stage.url} while this runs: {' '.join(command)}")
        try:
            done = subprocess.run(command, env={**os.environ, **stage.environment}, check=False)
        except OSError as error:
            raise WrongUsage(f"{command[0]}: {error.strerror}", remedy="likewise rehearse TARGET -- COMMAND") from error
    raise typer.Exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
