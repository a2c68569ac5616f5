"""The command line in the process of the test, which spares the start of an interpreter."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from likewise.cli import main


def command(*words: str | Path, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `likewise WORDS`, which must end with `code`; variables: of the environment, beside this process's."""
    arguments, written, errors = [str(word) for word in words], io.StringIO(), io.StringIO()
    with _restored(), patch.dict(os.environ, variables), redirect_stdout(written), redirect_stderr(errors):
        sys.argv = ["likewise", *arguments]
        try:
            main()
        except SystemExit as end:
            ended = end.code
    done = subprocess.CompletedProcess(arguments, int(ended or 0), written.getvalue(), errors.getvalue())
    assert done.returncode == code, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@contextmanager
def _restored() -> Iterator[None]:
    """What `main` sets of a whole process is as before afterwards: arguments, signals, environment."""
    arguments, handlers = sys.argv, {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with patch.dict(os.environ):
        try:
            yield
        finally:
            sys.argv = arguments
            for number, handler in handlers.items():
                signal.signal(number, handler)
