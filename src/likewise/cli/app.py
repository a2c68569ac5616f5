"""The `likewise` application: registers the commands and turns exceptions into error output and exit codes."""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import logging
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated

import typer

from likewise.cli.examples import epilog, group
from likewise.cli.flags import refuse_empty, with_flags
from likewise.cli.screen import Screen, show_error
from likewise.core.errors import Interrupted, LikewiseError, OutputRefused, WrongUsage
from likewise.core.isolation import StopSignal
from likewise.core.json_log import TEXT, TIME
from likewise.core.stdout import release_stdout, stdout
from likewise.core.uris import redacted

COMMANDS = {
    "bundle": "models",
    "inspect": "models",
    "scan": "scan",
    "serve": "serving",
    "score": "scoring",
    "deploy": "deployments",
    "list": "operations",
    "status": "operations",
    "logs": "operations",
    "predict": "deployments",
    "update": "deployments",
    "history": "operations",
    "delete": "deployments",
    "transform": "jobs",
    "rehearse": "jobs",
    "verify": "verify",
    "demo": "demo",
    "doctor": "machine",
    "trust": "models",
    "image": "images",
}
"""The module in `likewise.cli` of each command."""


def application(*names: str) -> typer.Typer:
    """The application with the commands `names`; others are not imported, because that takes longer than many run."""
    app = typer.Typer(
        name="likewise",
        help="Deploy an MLflow model to any target and get the same predictions from each.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown" if len(names) > 1 else None,  # its tables of options are unreadable at 80 columns
        context_settings={"help_option_names": ["--help"]},
    )
    app.callback()(root)
    for name in names:
        module = importlib.import_module(f"likewise.cli.{COMMANDS[name]}")
        command = getattr(module, name, None) or getattr(module, f"{name}_")
        if isinstance(command, typer.Typer):
            app.add_typer(command, rich_help_panel=group(name))
        else:
            app.command(name, rich_help_panel=group(name), epilog=epilog(name))(with_flags(command))
    return app


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(importlib.metadata.version("likewise"))
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Deploy an MLflow model to any target and get the same predictions from each."""


def main() -> None:
    """Run the `likewise` command and exit the process.

    Exit codes: 0 success, 1 failure, 2 invalid usage, 3 predictions differ (`verify`), 130 interrupted.
    """
    release_stdout()  # in a process that has run a command before
    Screen.printed = False
    quiet_libraries()
    signal.signal(signal.SIGINT, raise_interrupt)
    signal.signal(signal.SIGTERM, raise_interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, raise_interrupt)
    try:
        if sys.argv[1:] in ([], ["image"]):
            sys.argv.append("--help")
        typed = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
        words = typed.split() if "_LIKEWISE_COMPLETE" in os.environ else sys.argv
        named = [word for word in words[1:2] if word in COMMANDS]
        app = application(*(named or COMMANDS))
        if "_LIKEWISE_COMPLETE" not in os.environ:
            refuse_empty(own_words())
        code = app(standalone_mode=False, prog_name="likewise") or 0  # the call returns the code of a typer.Exit
        if code == Interrupted.exit_code:
            raise KeyboardInterrupt  # typer turned it into an exit code
    except (KeyboardInterrupt, typer.Abort):
        code = report_error(Interrupted("stopped by a signal", remedy="run the same command again"))
    except BrokenPipeError:
        # The reader of stdout has exited. Without this, Python reports the error again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout().fileno())
        code = 1
    except Exception as error:  # noqa: BLE001  it is reported
        code = report_error(as_likewise_error(error))
        if os.environ.get("LIKEWISE_DEBUG"):
            sys.stderr.write(redacted("".join(traceback.format_exception(error))))
    sys.exit(code)


def raise_interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Handle SIGINT, SIGTERM and SIGHUP alike: raise a KeyboardInterrupt, so that the command cleans up.

    Further SIGTERMs and SIGHUPs are ignored during the cleanup; a further Ctrl-C is not.
    """
    for ignored in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    raise StopSignal


def report_error(error: LikewiseError) -> int:
    """Print the error, as JSON if `--json` was given, and return its exit code."""
    show_error(error, as_json="--json" in own_words())
    return error.exit_code


def own_words() -> list[str]:
    """The command line without that of another program, as in `rehearse -- COMMAND`."""
    return sys.argv[: sys.argv.index("--")] if "--" in sys.argv else sys.argv


def as_likewise_error(error: Exception) -> LikewiseError:
    """Convert any exception into an error with a code, a cause and a remedy."""
    if isinstance(error, LikewiseError):
        return error
    if isinstance(error, typer.TyperException):
        names = [word for word in sys.argv[1:2] if word in COMMANDS]
        return WrongUsage(error.format_message(), remedy=" ".join(["run: likewise", *names, "--help"]))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputRefused(f"no space left: {error}", remedy="free some space, or write to another disk")
    if isinstance(error, PermissionError):
        return OutputRefused(f"permission denied: {error}", remedy="check the owner and mode of the file or folder")
    return LikewiseError(
        f"{type(error).__name__}: {error}",
        remedy="this is a bug in Likewise: report it with the output of the same command run with LIKEWISE_DEBUG=1",
    )


class _WithoutSecrets(logging.Formatter):
    """Removes secrets from the URIs that libraries log, for example when they retry a request."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def quiet_libraries() -> None:
    """Silence progress bars, log records and warnings of the libraries in use; their errors still appear."""
    handler = logging.StreamHandler()
    handler.setFormatter(_WithoutSecrets(TEXT, TIME))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("mlflow", "alembic", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
