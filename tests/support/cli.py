"""Runs the command line in the test's own process, for tests that do not need a separate one."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from likewise.cli.app import main
from likewise.core.stdout import release_stdout


def call(
    *words: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    program: Callable[[], object] = main,
) -> subprocess.CompletedProcess[str]:
    """Run `likewise WORDS` as if in a separate process.

    env: the whole environment, or None for that of this process. program: called instead of `likewise`.
    """
    command = ["likewise", *map(str, words)]
    out, err = _stream(), _stream()
    with _restored(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = command
        if cwd is not None:
            os.chdir(cwd)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        try:
            program()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
    return subprocess.CompletedProcess(command, code, _text(out), _text(err))


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Restore arguments, folder, environment and signal handlers of this process afterwards."""
    argv, folder, environment = sys.argv, Path.cwd(), dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        release_stdout()  # else the next test in this process would write to a closed stream
        sys.argv = argv
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
