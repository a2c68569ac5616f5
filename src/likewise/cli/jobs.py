"""Commands for target features other than deployments: `transform` (batch jobs) and `rehearse` (emulation)."""

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
from likewise.core.stdout import stdout_of_child
from likewise.targets.base import BATCH


def transform(
    model: ModelArgument,
    source: Annotated[str, argument("INPUT", "CSV or JSON Lines files: s3://bucket/prefix.")],
    output: Annotated[str, flag("--output -o OUTPUT", "Where to write the `.out` files: s3://bucket/prefix.")],
    to: Annotated[str, flag("--to -t TARGET", "Where to run the job: sagemaker:/REGION.")],
    name: Annotated[str, flag("--name NAME", "Prefix of the job's name.")] = BATCH,
    config: Annotated[
        list[str] | None,
        flag("--config -C KEY=VALUE", "Set an option of the job; give nested values as JSON. Repeatable."),
    ] = None,
    restart: Annotated[bool, flag("--restart", "Run the job again even if it has already completed.")] = False,
    options: Annotated[bool, flag("--options", "Show the job's options and exit.")] = False,
    *,
    choice: Choice,
    screen: Screen,
) -> None:
    """Run a batch transform job on SageMaker, next to the data. Resumes if interrupted and run again.

    All resources except the output are deleted when the job ends.
    """
    target = deployments.job_target(to)  # reports an unsupported target before the model is bundled
    if options:
        screen.options(f"Options of jobs on {to}", target.job_options())
        return
    result = deployments.job(
        choice.find(model, screen.note).spec(),
        to,
        source,
        output,
        parse_config(config or []),
        name=name,
        restart=restart,
        on_step=lambda step: screen.note(step.about),
        progress=screen.note,
    )
    facts = [("job", result.id), ("status", result.status), ("output", result.output)]
    screen.result(asdict(result), "Transform job", [*facts, ("time", f"{result.seconds:.0f} s")])


def rehearse(
    target: Annotated[str, argument("TARGET", "Target to emulate: sagemaker:/REGION.")],
    command: Annotated[list[str], argument("COMMAND…", "Command to run, after `--`.")],
) -> None:
    """Run COMMAND against a local emulation of TARGET, and exit with its exit code.

    The command's environment contains `AWS_ENDPOINT_URL` and credentials of the emulated account, so AWS's own
    tools work too. Everything that it deploys is deleted when it exits.
    """
    screen = Screen()
    with deployments.rehearsal_stage(target) as stage:
        for caution in stage.cautions:
            screen.note(caution)
        screen.note(f"{target} is emulated at {stage.url} while this command runs: {' '.join(command)}")
        environment = {**os.environ, **stage.environment}
        try:
            process = subprocess.run(command, env=environment, stdout=stdout_of_child(), check=False)
        except OSError as error:
            raise WrongUsage(
                f"{command[0]}: {error.strerror}", remedy="run: likewise rehearse TARGET -- CMD"
            ) from error
    raise typer.Exit(process.returncode if process.returncode >= 0 else 128 - process.returncode)
