"""The container's one command: options, model, server."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from likewise.container.machine import settle
from likewise.core.errors import LikewiseError, WrongUsage

_TRIED = "as SageMaker calls it: docker run IMAGE serve"


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM; the exit code."""
    return ended(partial(_serve, list(arguments)))


def ended(serve: Callable[[], int]) -> int:
    """The exit code of `serve`. What goes wrong is told on stderr, which CloudWatch keeps."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        settle(os.environ)  # before any library that counts cores is loaded
        return serve()
    except Exception as error:
        known = _known(error)
        say(f"{known.code}: {known.cause}\nremedy: {known.remedy}")
        if os.environ.get("LIKEWISE_DEBUG"):
            raise
        return known.exit_code


def _serve(arguments: list[str]) -> int:
    if arguments != ["serve"]:
        raise WrongUsage(f"the container's command is 'serve', and not {' '.join(arguments)!r}", remedy=_TRIED)
    from likewise.container.app import container_app
    from likewise.container.models import find_model
    from likewise.container.settings import read_options
    from likewise.server.run import run

    options = read_options(os.environ)
    bundle = find_model(options, say)
    app = container_app(bundle, options)
    service = app.state.service

    def listening(url: str) -> None:
        say(f"{bundle.digest} at {url}; loading the model")

    def ready(url: str) -> None:
        say(f"ready at {url}, engine {service.engine_label}")

    run(app, options, on_listening=listening, on_ready=ready)
    return 0


def say(text: str) -> None:
    """A line on stderr, at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _known(error: Exception) -> LikewiseError:
    if isinstance(error, LikewiseError):
        return error
    if isinstance(error, PermissionError) and error.filename:
        return LikewiseError(
            f"user {os.getuid()} of the container may not read {Path(error.filename)}",
            remedy="let everybody read the files: chmod -R a+rX",
        )
    return LikewiseError(
        f"{type(error).__name__}: {error}",
        remedy="this is a defect of Likewise: report it with the log of the same container under LIKEWISE_DEBUG=1",
    )
