"""One service process, seen from its supervisor: started, ready, asked to leave, ended.

The standard library and modules of it alone: the supervisor imports it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from likewise.core.errors import DeployFailed, LikewiseError
from likewise.targets.listener import FORCED_S, HAND_OVER, give
from likewise.targets.local.deployment_folder import Home, ServiceSpec

LEAVE_S = 5.0  # for a process that was told to accept no more


class Service:
    """A process that serves `asked`."""

    def __init__(self, home: Home, asked: ServiceSpec) -> None:
        self.asked = asked
        self._home = home
        self._log_begin = home.log_size()
        self._swept = False
        self.ready_since = 0.0  # time.monotonic()

    async def start(self, handles: Sequence[int]) -> None:
        """The process, which begins to load; `handles`: the listener and the lock, which it holds from now on."""
        ours, theirs = socket.socketpair()
        with theirs:
            give(ours, *handles)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "likewise.targets.local.child", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # what the model starts ends with it
            )
        self.pid = self._process.pid
        self._lines, self._writer = await asyncio.open_connection(sock=ours)
        message = {"asked": self.asked.as_dict(), "bundle": str(self._home.bundle(self.asked.model.digest))}
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def ready(self) -> None:
        """Until it answers; why it does not get there, with the process ended, as a LikewiseError."""
        seconds = float(self.asked.options["start_timeout_s"])
        try:
            async with asyncio.timeout(seconds):
                said = await self._said()
        except TimeoutError:
            await self.kill()
            cause, remedy = f"the model was not ready within {seconds:g} s", "allow more: -C start_timeout_s=SECONDS"
            raise self._failure(cause, remedy) from None
        if "ready" not in said:
            await self.kill()
            if "failed" in said:
                raise LikewiseError.from_dict(said["failed"])
            cause = f"the service {_ending(self._process.returncode)} before it was ready"
            raise self._failure(cause, "read the log's lines above")
        self.ready_since = time.monotonic()

    async def ended(self) -> str:
        """How it ended, once it has."""
        code = await self._process.wait()
        self._sweep()
        return _ending(code)

    async def leave(self) -> None:
        """Until it accepts no more, which it is told here; what it holds it still answers."""
        self._signal(HAND_OVER)
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await self._said()  # that it has, or nothing, where it has ended

    async def drain(self, *, told: bool = False) -> None:
        """Until it has answered what it holds and has ended; told: it was asked to leave already."""
        if not told:
            self._signal(signal.SIGTERM)
        options = self.asked.options
        try:
            async with asyncio.timeout(options["drain_linger_s"] + options["drain_timeout_s"] + FORCED_S):
                await self.ended()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it now."""
        self._signal(signal.SIGKILL)
        await self.ended()

    async def _said(self) -> dict[str, Any]:
        """Its next message; empty where it has ended."""
        line = await self._lines.readline()
        return dict(json.loads(line)) if line.endswith(b"\n") else {}

    def _failure(self, cause: str, remedy: str) -> DeployFailed:
        return DeployFailed(f"{cause}; its last lines:\n{self._home.tail(self._log_begin)}", remedy=remedy)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _sweep(self) -> None:
        """End what the model has started; close the channel. Once: the number may soon be another process's."""
        if self._swept:
            return
        self._swept = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._writer.close()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"
