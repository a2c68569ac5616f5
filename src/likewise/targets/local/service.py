"""The supervisor's handle of a service process: start it, wait until it is ready, hand over, drain, stop.

Imports only the standard library and modules that do the same, because the supervisor imports it.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from likewise.core.ending import end_started_by
from likewise.core.errors import DeployFailed, LikewiseError
from likewise.core.processes import outer_python
from likewise.targets.listener import FORCED_S, HAND_OVER, send_handles
from likewise.targets.local.deployment_folder import DeploymentFolder, ServiceSpec

MARK = "LIKEWISE_SERVICE"  # an environment variable by which a service's processes are found, however they are detached
HAND_OVER_S = 5.0  # for a process to stop accepting connections after the signal HAND_OVER


class Service:
    """A process that serves `spec`."""

    def __init__(self, folder: DeploymentFolder, spec: ServiceSpec) -> None:
        self.spec = spec
        self._folder = folder
        self._log_start = folder.log_size()
        self._swept = False
        self._mark = secrets.token_hex(16)
        self.ready_since = 0.0  # time.monotonic()

    async def start(self, handles: Sequence[int]) -> None:
        """Start the process, which loads the model.  handles: file descriptors of the listener and the lock."""
        ours, theirs = socket.socketpair()
        python = self.spec.model.python or outer_python()  # of this version, whatever the supervisor was started by
        with theirs:
            send_handles(ours, *handles)
            self._process = await asyncio.create_subprocess_exec(
                *(python, "-P", "-m", "likewise.targets.local.child", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, MARK: self._mark},
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._lines, self._writer = await asyncio.open_connection(sock=ours)
        message = {"asked": self.spec.as_dict(), "bundle": str(self._folder.bundle(self.spec.model.key))}
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def ready(self) -> None:
        """Wait until it serves.  If it fails to, the process is killed and a LikewiseError raised."""
        seconds = float(self.spec.options["start_timeout_s"])
        try:
            async with asyncio.timeout(seconds):
                message = await self._message()
        except TimeoutError:
            await self.kill()
            cause = f"the model was not ready within {seconds:g} s"
            raise self._failure(cause, "allow more time: -C start_timeout_s=SECONDS") from None
        if "ready" not in message:
            await self.kill()
            if "failed" in message:
                raise LikewiseError.from_dict(message["failed"])
            cause = f"the service {_describe_exit(self._process.returncode)} before it was ready"
            raise self._failure(cause, "correct the cause given in the log lines")
        self.ready_since = time.monotonic()

    async def exited(self) -> str:
        """Wait until it exits; returns a description of how."""
        code = await self._process.wait()
        self._sweep()
        return _describe_exit(code)

    async def hand_over(self) -> None:
        """Make it stop accepting connections, and wait until it has; it still serves those that are open."""
        self._signal(HAND_OVER)
        with suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                await self._message()  # the confirmation, or nothing if the process has exited

    async def drain(self, *, signaled: bool = False) -> None:
        """Wait until it has completed its requests and exited.  signaled: it is already draining after `hand_over`."""
        if not signaled:
            self._signal(signal.SIGTERM)
        options = self.spec.options
        try:
            async with asyncio.timeout(options["drain_linger_s"] + options["drain_timeout_s"] + FORCED_S):
                await self.exited()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Kill the process and wait until it has exited."""
        self._signal(signal.SIGKILL)
        await self.exited()

    async def _message(self) -> dict[str, Any]:
        """Its next message; empty if it has exited."""
        line = await self._lines.readline()
        return dict(json.loads(line)) if line.endswith(b"\n") else {}

    def _failure(self, cause: str, remedy: str) -> DeployFailed:
        return DeployFailed(f"{cause}\nlast log lines:\n{self._folder.tail(self._log_start)}", remedy=remedy)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _sweep(self) -> None:
        """Kill the processes that it started, and close the channel; only once, because ids are reused."""
        if self._swept:
            return
        self._swept = True
        end_started_by(self.pid, f"{MARK}={self._mark}")
        self._writer.close()


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"exited with code {code}"
