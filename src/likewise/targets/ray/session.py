"""Ray work in a process of its own: a Ray session of the caller's is left alone, and what hangs can be ended.

Importing Ray and joining a cluster take seconds, so the process, the agent, stays for further requests.
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
from likewise.targets.ray.agent import HOW_TO_START, IDLE_S, LEAVE_S

CONNECT_S = 120.0  # a busy head node gives up a start of its client server after 30 s; it is tried once more
TAIL = 600  # characters
SETTINGS = ("RAY_", "LIKEWISE_", "XDG_", "HOME")  # how the variables begin that an agent reads
_DIED = (EOFError, ConnectionError)

_lock = threading.Lock()
_unused: list[_Agent] = []  # connected agents that wait for a request


def ask(address: str, action: str, params: Mapping[str, Any], *, timeout_s: float = 60.0) -> Any:
    """What `likewise.targets.ray.agent` answers to `action` on the cluster at `address`.

    timeout_s: after the connection.  Raises TargetUnavailable (no connection in CONNECT_S), DeployFailed (time-out),
    and whatever the agent raises.
    """
    try:
        agent, answer = _answered(address, {"action": action, "params": params}, timeout_s)
    except TimeoutError:
        raise DeployFailed(
            f"Ray at {address} did not do {action!r} in {timeout_s:.0f} s",
            remedy="look at it with `ray status` and `serve status`, then run the same command again",
        ) from None
    with _lock:
        _unused.append(agent)
    if "error" in answer:
        raise LikewiseError.from_dict(answer["error"])
    return answer["value"]


def _answered(address: str, request: Mapping[str, Any], timeout_s: float) -> tuple[_Agent, dict[str, Any]]:
    """The answer and the agent that gave it; TimeoutError, TargetUnavailable, and what the connection raises."""
    if (agent := _take(address)) is not None:
        with contextlib.suppress(*_DIED):  # since it was used last
            return agent, agent.receive(timeout_s, request)
    agent = _Agent(address)
    try:
        agent.connect()
        return agent, agent.receive(timeout_s, request)
    except _DIED:
        raise agent.unreachable() from None


def _take(address: str) -> _Agent | None:
    """An unused agent that is joined to this cluster; those that have become useless are ended."""
    settings = _settings()
    with _lock:
        fit = [each for each in _unused if each.settings == settings and time.monotonic() - each.used < IDLE_S / 2]
        useless = [each for each in _unused if each not in fit]
        taken = next((each for each in fit if each.address == address), None)
        _unused[:] = [each for each in fit if each is not taken]
    for each in useless:
        each.end()
    return taken


def _settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}


class _Agent:
    """A process that does one action after the other on one cluster."""

    def __init__(self, address: str) -> None:
        self.address, self.settings, self.used = address, _settings(), time.monotonic()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  `end` closes it
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "likewise.targets.ray.agent", address, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def connect(self) -> None:
        """Wait for its connection to the cluster; TargetUnavailable, and whatever it raises."""
        try:
            answer = self.receive(CONNECT_S)
        except TimeoutError:
            raise self.unreachable() from None
        if "error" in answer:
            self.end()
            raise LikewiseError.from_dict(answer["error"])

    def receive(self, timeout_s: float, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Its answer to `request`, or to the start.  Raises TimeoutError, EOFError or ConnectionError; it has ended."""
        try:
            if request is not None:
                self._pipe.send_bytes(json.dumps(request).encode())
            if not self._pipe.poll(timeout_s):
                raise TimeoutError
            answer: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        except BaseException:
            self.end()
            raise
        self.used = time.monotonic()
        return answer

    def unreachable(self) -> TargetUnavailable:
        """With the last that Ray said."""
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        said = lines[-1][-TAIL:] if lines else "nothing"
        return TargetUnavailable(f"no Ray cluster answers at {self.address}; Ray said: {said}", remedy=HOW_TO_START)

    def end(self) -> None:
        """It leaves the cluster by itself when this end of the pipe is closed, or is killed."""
        self._pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@atexit.register
def _end_all() -> None:
    while _unused:
        _unused.pop().end()


os.register_at_fork(after_in_child=_unused.clear)  # they answer the parent
