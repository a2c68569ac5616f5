"""The container's command `serve`: read the options, find the model, run the server."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from likewise.container.machine import configure_environment
from likewise.core.ending import end_in_time
from likewise.core.errors import LikewiseError, WrongUsage
from likewise.core.json_log import log_to_stderr, write_line

_USAGE = "run it like SageMaker: docker run IMAGE serve"


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM; returns the exit code."""
    return exit_code_of(partial(_serve, list(arguments)))


def exit_code_of(serve: Callable[[], int]) -> int:
    """Call `serve` and return its exit code; errors are printed to stderr, which CloudWatch stores."""
    log_to_stderr(logging.WARNING, as_json=_as_json())
    try:
        configure_environment(os.environ)  # before any library that counts cores is loaded
        return serve()
    except Exception as error:
        reported = _as_likewise_error(error)
        if _as_json():
            write_line(reported.cause, "error", error_code=reported.code, remedy=reported.remedy)
        else:
            log_line(f"{reported.code}: {reported.cause}\nremedy: {reported.remedy}")
        if os.environ.get("LIKEWISE_DEBUG"):
            raise
        return reported.exit_code


def _serve(arguments: list[str]) -> int:
    if arguments != ["serve"]:
        raise WrongUsage(f"unknown container command {' '.join(arguments)!r}; use 'serve'", remedy=_USAGE)
    from likewise.container.app import container_app
    from likewise.container.models import find_model
    from likewise.container.settings import read_options
    from likewise.server.run import run

    options = read_options(os.environ, warn)
    end_in_time(options.end_s)
    bundle = find_model(options, log_line)
    app = container_app(bundle, options)
    service = app.state.service

    def listening(url: str) -> None:
        log_line(f"{bundle.digest} at {url}; loading the model")

    def ready(url: str) -> None:
        log_line(f"ready at {url}, engine {service.engine_label}")

    run(app, options, on_listening=listening, on_ready=ready)
    return 0


def _as_json() -> bool:
    return os.environ.get("LIKEWISE_LOG_FORMAT") == "json"


def log_line(text: str) -> None:
    """Write a line to stderr and flush it."""
    if _as_json():
        write_line(text)
        return
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def warn(ignored: LikewiseError) -> None:
    """Write a line for something that has no effect."""
    log_line(f"warning: {ignored.cause}, which has no effect; {ignored.remedy}")


def _as_likewise_error(error: Exception) -> LikewiseError:
    if isinstance(error, LikewiseError):
        return error
    if isinstance(error, PermissionError) and error.filename:
        return LikewiseError(
            f"the container's user {os.getuid()} has no permission to read {Path(error.filename)}",
            remedy="make the files readable for all users: chmod -R a+rX",
        )
    return LikewiseError(
        f"{type(error).__name__}: {error}",
        remedy="this is a bug in Likewise: report it with the log of the same container with LIKEWISE_DEBUG=1",
    )
