"""Ray work in a process of its own: a Ray session of the caller's is left alone, and what hangs can be ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

from likewise.core import errors
from likewise.core.errors import DeployFailed, TargetUnavailable

CONNECT_S = 60.0  # Ray itself tries an address where nothing answers for many minutes
LEAVE_S = 1.0  # for the agent to leave the cluster by itself
TAIL = 600  # characters


def ask(address: str, action: str, params: Mapping[str, Any], *, timeout_s: float = 60.0) -> Any:
    """What `likewise.targets.ray.agent` answers to `action` on the cluster at `address`.

    timeout_s: after the connection.  Raises TargetUnavailable (no connection in CONNECT_S), DeployFailed (time-out),
    and whatever the agent named.
    """
    with tempfile.TemporaryFile() as log, _started(log) as process:
        asked = json.dumps({"address": address, "action": action, "params": params})
        process.stdin.write(f"{asked}\n".encode())  # and left open: the agent ends with us
        said = _line(process.stdout, CONNECT_S)
        if said == {"connected": True}:
            said = _line(process.stdout, timeout_s)
            if said is None and process.poll() is None:
                raise DeployFailed(
                    f"Ray at {address} did not do {action!r} in {timeout_s:.0f} s",
                    remedy="look at it with `ray status` and `serve status`, then run the same command again",
                )
        if said is None:
            raise _unreachable(address, log)
    if "error" in said:
        error = said["error"]
        raise getattr(errors, error["kind"])(error["cause"], remedy=error["remedy"])
    return said["value"]


@contextlib.contextmanager
def _started(log: IO[bytes]) -> Iterator[Any]:
    command = [sys.executable, "-P", "-m", "likewise.targets.ray.agent"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, bufsize=0, start_new_session=True) as process:
        try:
            yield process
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LEAVE_S)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


def _line(stream: IO[bytes], timeout_s: float) -> dict[str, Any] | None:
    """The next line, as JSON; None where there is none in time, or no more."""
    deadline, line = time.monotonic() + timeout_s, b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(stream.fileno(), 1) if ready else b""
        if not piece:
            return None
        line += piece
    said: dict[str, Any] = json.loads(line)
    return said


def _unreachable(address: str, log: IO[bytes]) -> TargetUnavailable:
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    said = lines[-1][-TAIL:] if lines else "nothing"
    return TargetUnavailable(
        f"no Ray cluster answers at {address}; Ray said: {said}",
        remedy="start one with `ray start --head`, or name its address: ray-serve://HOST:10001",
    )
