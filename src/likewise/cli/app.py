"""The commands put together, and what happens when one fails."""

from __future__ import annotations

import errno
import importlib.metadata
import logging
import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from likewise.cli import deployments, images, jobs, machine, models, serving, verify
from likewise.cli.flags import with_flags
from likewise.cli.screen import failure
from likewise.core.errors import Interrupted, LikewiseError, OutputRefused, WrongUsage

app = typer.Typer(
    name="likewise",
    help="One MLflow model, every place where it must answer, the same answer from each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["--help"]},
)
COMMANDS = (
    *(models.bundle, models.inspect, serving.serve, serving.score),
    *(
        deployments.deploy,
        deployments.list_,
        deployments.status,
        deployments.predict,
        deployments.update,
        deployments.delete,
    ),
    *(jobs.transform, jobs.rehearse, verify.verify),
    *(machine.demo, machine.doctor, models.trust),
)
for command in COMMANDS:
    app.command(command.__name__.rstrip("_"))(with_flags(command))
app.add_typer(images.image)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.metadata.version("likewise"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """One MLflow model, every place where it must answer, the same answer from each."""


def main() -> None:
    """The `likewise` command. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 answers differ, 130 interrupted."""
    quiet_libraries()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        code = app(standalone_mode=False, prog_name="likewise") or 0  # that of a typer.Exit, which it returns
        if code == Interrupted.exit_code:
            raise KeyboardInterrupt  # typer has made a code of it
    except (KeyboardInterrupt, typer.Abort):
        code = report(Interrupted("stopped by a signal", remedy="run the same command again"))
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        code = report(explained(error))
        if os.environ.get("LIKEWISE_DEBUG"):
            raise
    sys.exit(code)


def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """A stop is a stop, by Ctrl-C or SIGTERM: a job cleans up, and no second SIGTERM disturbs it, but a Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def report(error: LikewiseError) -> int:
    """Show the error where this call wants it; its exit code."""
    failure(error, as_json="--json" in sys.argv)
    return error.exit_code


def explained(error: Exception) -> LikewiseError:
    """Any exception as code, cause, remedy."""
    if isinstance(error, LikewiseError):
        return error
    if isinstance(error, typer.TyperException):
        named = [word for word in sys.argv[1:2] if word in {command.__name__.rstrip("_") for command in COMMANDS}]
        return WrongUsage(error.format_message(), remedy=" ".join(["likewise", *named, "--help"]))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputRefused(f"no space left: {error}", remedy="free some space, or write to another disk")
    if isinstance(error, PermissionError):
        return OutputRefused(f"not permitted: {error}", remedy="check who owns the file or folder")
    return LikewiseError(
        f"{type(error).__name__}: {error}",
        remedy="this is a defect of Likewise: report it with the output of the same command under LIKEWISE_DEBUG=1",
    )


def quiet_libraries() -> None:
    """What other libraries tell of their inner life stays out of the way."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for name in ("mlflow", "alembic", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
