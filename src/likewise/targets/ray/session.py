"""Ray calls in a separate process: the caller's own Ray session is not affected, and a hanging call can be killed.

Importing Ray and connecting to a cluster take seconds, so this process, the agent, is reused for further requests.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from multiprocessing import Pipe
from typing import Any

from likewise.core.errors import DeployFailed, LikewiseError, TargetUnavailable
from likewise.core.uris import redacted
from likewise.targets.ray.agent import HOW_TO_START, IDLE_S, LEAVE_S

CONNECT_S = 120.0  # a busy head node aborts the start of its client server after 30 s; the agent retries once
MESSAGE_CHARS = 600
SETTINGS = ("RAY_", "LIKEWISE_", "XDG_", "HOME")  # prefixes of the environment variables that an agent reads
_AGENT_DIED = (EOFError, ConnectionError)

_lock = threading.Lock()
_idle: list[_Agent] = []  # connected agents without a current request


def call(address: str, action: str, params: Mapping[str, Any], *, timeout_s: float = 60.0) -> Any:
    """The result of `action` of `likewise.targets.ray.agent` on the cluster at `address`.

    timeout_s: starts after the connection.  Raises TargetUnavailable (no connection in CONNECT_S), DeployFailed
    (time-out), and the errors of the action.
    """
    try:
        agent, response = _send(address, {"action": action, "params": params}, timeout_s)
    except TimeoutError:
        raise DeployFailed(
            f"Ray at {address} did not complete {action!r} in {timeout_s:.0f} s",
            remedy="check `ray status` and `serve status`, then run the same command again",
        ) from None
    with _lock:
        _idle.append(agent)
    if "error" in response:
        raise LikewiseError.from_dict(response["error"])
    return response["value"]


def _send(address: str, request: Mapping[str, Any], timeout_s: float) -> tuple[_Agent, dict[str, Any]]:
    """The agent and its response; raises TimeoutError, TargetUnavailable, and the errors that connecting reports."""
    if (agent := _take(address)) is not None:
        with contextlib.suppress(*_AGENT_DIED):  # since its last request: then a new agent is started
            return agent, agent.receive(timeout_s, request)
    agent = _Agent(address)
    try:
        agent.connect()
        return agent, agent.receive(timeout_s, request)
    except _AGENT_DIED:
        raise agent.unreachable() from None


def _take(address: str) -> _Agent | None:
    """An idle agent that is connected to this cluster, if any; agents that are no longer usable are stopped."""
    settings = _settings()
    with _lock:
        usable = [each for each in _idle if each.settings == settings and time.monotonic() - each.used < IDLE_S / 2]
        stale = [each for each in _idle if each not in usable]
        taken = next((each for each in usable if each.address == address), None)
        _idle[:] = [each for each in usable if each is not taken]
    for each in stale:
        each.end()
    return taken


def _settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}


class _Agent:
    """A process that executes one action after the other on one cluster."""

    def __init__(self, address: str) -> None:
        self.address, self.settings, self.used = address, _settings(), time.monotonic()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  `end` closes it
        self._pipe, agent_end = Pipe()
        with agent_end:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "likewise.targets.ray.agent", address, str(agent_end.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[agent_end.fileno()],
                start_new_session=True,
            )

    def connect(self) -> None:
        """Wait until the agent is connected to the cluster; raises TargetUnavailable, and what it reports."""
        try:
            response = self.receive(CONNECT_S)
        except TimeoutError:
            raise self.unreachable() from None
        if "error" in response:
            self.end()
            raise LikewiseError.from_dict(response["error"])

    def receive(self, timeout_s: float, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The response to `request`, or the message that the agent sends once it is connected if `request` is None.

        Raises TimeoutError, EOFError or ConnectionError, after which the agent has been stopped.
        """
        try:
            if request is not None:
                self._pipe.send_bytes(json.dumps(request).encode())
            if not self._pipe.poll(timeout_s):
                raise TimeoutError
            response: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        except BaseException:
            self.end()
            raise
        self.used = time.monotonic()
        return response

    def unreachable(self) -> TargetUnavailable:
        """The error to raise, with the last line of Ray's output."""
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        output = redacted(lines[-1])[-MESSAGE_CHARS:] if lines else "none"
        return TargetUnavailable(
            f"no response from a Ray cluster at {self.address}; Ray's last output: {output}", remedy=HOW_TO_START
        )

    def end(self) -> None:
        """Stop the agent: it disconnects when this end of the pipe is closed, or is killed after LEAVE_S."""
        self._pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


os.register_at_fork(after_in_child=_idle.clear)  # the agents serve the parent process
