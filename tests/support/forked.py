"""Processes forked from one that has imported the libraries: each a process of its own, which starts at once."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["likewise.cli.app", "boto3", "likewise.batch.s3", "likewise.batch", "mlflow.pyfunc", "pandas", "pyarrow.parquet"]
)


def forked(
    function: Callable[..., object], *arguments: object, out: Path, env: Mapping[str, str] | None = None
) -> ForkServerProcess:
    """`function` in a process that writes its stdout to `out` and its stderr to `out`.err.

    env: all of its environment, or None for this process's own.
    """
    known = dict(os.environ if env is None else env)
    process = _FORKS.Process(target=_begin, args=(function, arguments, str(out), known), daemon=True)
    process.start()
    return process


def likewise(arguments: Sequence[str], out: Path, env: Mapping[str, str] | None = None) -> ForkServerProcess:
    """The command `likewise` with these arguments; see `forked`."""
    return forked(_command, list(arguments), out=out, env=env)


def _begin(function: Callable[..., object], arguments: Sequence[object], out: str, env: dict[str, str]) -> None:
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
