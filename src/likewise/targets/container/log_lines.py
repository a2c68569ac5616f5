"""Reads the logs of a deployment's versions, and follows them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from likewise.core.errors import TargetUnavailable
from likewise.targets.base import LOG_ENDS
from likewise.targets.container import inspection
from likewise.targets.container.inspection import ContainerState
from likewise.targets.container.program import DOCTOR, Program

POLL_S = 0.5


def log_lines(program: Program, name: str, current: ContainerState, lines: int, follow: bool) -> Iterator[str]:
    """The log of `current`, a version of the deployment `name`; see `likewise.targets.base.Logs`."""
    arguments = ["--tail", str(lines)]
    while True:
        yield from _printed(program, [*arguments, *(["--follow"] if follow else []), current.name])
        if not follow:
            return
        following = _next(program, name, current)  # the engine ends its output when the container exits
        if following is None:
            yield LOG_ENDS
            return
        if following.name != current.name:
            yield f"likewise: now following {following.name}"
        current, arguments = following, ["--since", following.started]


def _next(program: Program, name: str, ended: ContainerState) -> ContainerState | None:
    """The version to follow after the container `ended`, once it runs; None if the deployment no longer exists."""
    while True:
        containers = inspection.deployment(program, name)
        current = containers.current
        if current is None:
            return None
        if current.running and (current.name, current.started) != (ended.name, ended.started):
            return current
        time.sleep(POLL_S)


def _printed(program: Program, arguments: list[str]) -> Iterator[str]:
    """The lines that `logs` prints, of both streams in the order of their arrival."""
    with _running([program.name, "logs", *arguments]) as process:
        assert process.stdout is not None  # noqa: S101  it is a pipe
        last = ""
        for line in process.stdout:
            last = line.rstrip("\r\n")
            yield last
        if process.wait() and "--follow" not in arguments:  # else the container has been removed
            raise TargetUnavailable(f"{' '.join(map(str, process.args))}: {last}", remedy=DOCTOR)  # type: ignore[arg-type]


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise TargetUnavailable(f"{command[0]} does not run: {error}", remedy=DOCTOR) from error
    with process:
        try:
            yield process
        finally:
            process.kill()
