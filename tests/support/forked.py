"""Processes forked from a server process that has already imported the libraries, so that they start fast."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("likewise.cli.app", "boto3", "likewise.batch.s3", "likewise.batch", "mlflow.pyfunc", "pandas"),
        *("pyarrow.parquet", "tests.support.batch.kill_points"),
    ]
)


def forked(
    function: Callable[..., object], *arguments: object, out: Path, env: Mapping[str, str] | None = None
) -> ForkServerProcess:
    """Run `function` in a process that writes stdout to `out` and stderr to `out`.err.

    env: its complete environment; this process's if None.
    """
    environment = dict(os.environ if env is None else env)
    process = _FORKS.Process(target=_run_child, args=(function, arguments, str(out), environment), daemon=True)
    process.start()
    return process


def likewise(arguments: Sequence[str], out: Path, env: Mapping[str, str] | None = None) -> ForkServerProcess:
    """Run the command `likewise` with these arguments; see `forked`."""
    return forked(_command, list(arguments), out=out, env=env)


def _run_child(function: Callable[..., object], arguments: Sequence[object], out: str, env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    for number, path in ((1, out), (2, f"{out}.err")):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
        os.close(file)
    sys.exit(function(*arguments))


def _command(arguments: list[str]) -> None:
    from likewise.cli import main

    sys.argv = ["likewise", *arguments]
    main()
