"""One worker as seen from the server process: starts, loads, calls, watches and stops it."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import cast

from likewise.core.ending import end_started_by
from likewise.core.engine import EngineSpec
from likewise.core.errors import LikewiseError, WorkerDied
from likewise.core.scratch import scratch_folder
from likewise.workers.channel import DISCONNECTED, Channel
from likewise.workers.messages import CLOSE, unpack

MARK = "LIKEWISE_WORKER"  # an environment variable by which a worker's processes are found, however they are detached
TEMPORARY = "likewise-worker-"  # prefix of the folders for the temporary files of workers
NOTICE_S = 2.0  # after its sockets have closed, a process must exit within this time, or it is killed
CLOSE_S = 5.0  # time for the engine's `close`
KILLED_S = 10.0  # a killed process that still exists after this time hangs in the kernel


class Worker:
    """A process that runs an engine; it starts loading when this object is created.

    exited: set when the process has exited and its resources are freed.  worked: set by the pool when it assigns work.
    overran: set by the pool when it kills the process because a run takes too long.
    """

    def __init__(self, opener: bytes, start_timeout_s: float, environment: dict[str, str]) -> None:
        """opener: the first message.  start_timeout_s: seconds until the engine must be loaded."""
        self.exited = threading.Event()
        self.worked = self.overran = False
        self._start_timeout_s = start_timeout_s
        self._started = time.monotonic()
        self._mark = secrets.token_hex(16)
        try:
            self._start(environment)
        except OSError as error:
            raise _start_failed(error) from error
        self.pid = self._process.pid
        self._channel.send(opener)
        try:
            threading.Thread(target=self._watch, name=f"likewise-watch-{self.pid}", daemon=True).start()
        except RuntimeError as error:  # no more threads
            self.kill()
            self._watch()
            raise _start_failed(error) from error

    @property
    def exit_description(self) -> str:
        """How the process exited; valid after `exited` is set."""
        how = "was ended because a run took too long" if self.overran else _describe_exit(self._process.returncode)
        return f"the worker process {self.pid} {how}"

    def load(self) -> EngineSpec:
        """Wait until the engine is loaded. Raises what loading it raised, or WorkerDied; the process then exits."""
        left = self._started + self._start_timeout_s - time.monotonic()
        try:
            response = self._channel.receive(max(0.0, left))
        except DISCONNECTED:
            raise self.death("loaded the model") from None
        if response is None:
            self.kill()
            raise WorkerDied(
                f"a worker did not load the model within {self._start_timeout_s:g} s",
                remedy="increase the start timeout, or start fewer workers",
            )
        spec = cast("EngineSpec | LikewiseError", unpack(response))
        if isinstance(spec, LikewiseError):
            raise spec
        return spec

    def request(self, message: bytes) -> bytes:
        """Send packed items and return the packed answers. Raises WorkerDied."""
        try:
            return self._channel.request(message)
        except DISCONNECTED:
            raise self.death("ran this item") from None

    @property
    def stopped(self) -> bool:
        """Whether a signal has stopped the process, so that it does not run at all. Source: proc(5), /proc/PID/stat."""
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
        return False

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended the process, perhaps without any fault of the item; valid after `exited` is set."""
        return self._process.returncode == -signal.SIGKILL

    def death(self, doing: str) -> WorkerDied:
        """The error that reports the exit; kills the process if it is still running with its sockets closed."""
        if not self.exited.wait(NOTICE_S):
            self.kill()
            self.exited.wait(KILLED_S)
        return WorkerDied(
            f"{self.exit_description} while it {doing}",
            remedy="send the item again; if it happens often, check the server's log and the machine's memory",
        )

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def request_stop(self) -> None:
        """Let the process close its engine and exit; kill it if it is busy."""
        if not self._channel.send(CLOSE):
            self.kill()

    def _start(self, environment: dict[str, str]) -> None:
        with ExitStack() as opened:
            self._temporary = opened.enter_context(ExitStack())
            with suppress(OSError):  # there is no folder for temporary files
                folder = self._temporary.enter_context(scratch_folder(TEMPORARY))
                environment = {**environment, "TMPDIR": str(folder)}
            own, given = socket.socketpair()
            opened.callback(own.close)
            read_end, self._lifeline = os.pipe()
            opened.callback(os.close, self._lifeline)
            with given, os.fdopen(read_end, "rb") as lifeline:
                self._process = _spawn([given.fileno(), lifeline.fileno()], {**environment, MARK: self._mark})
            opened.pop_all()
        self._channel = Channel(own)

    def _watch(self) -> None:
        self._process.wait()
        end_started_by(self.pid, f"{MARK}={self._mark}")
        self._channel.close()
        os.close(self._lifeline)
        self._temporary.close()
        self.exited.set()


def _spawn(handles: Sequence[int], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "likewise.workers.child", *map(str, handles)],
        stdin=subprocess.DEVNULL,
        stdout=2,  # a model's output must not mix with the command's
        pass_fds=handles,
        env=environment,
        start_new_session=True,  # Ctrl-C in the terminal only reaches the server
    )


def stop_all(workers: Sequence[Worker]) -> None:
    """Stop all workers together; idle ones may close their engines first."""
    for worker in workers:
        worker.request_stop()
    deadline = time.monotonic() + CLOSE_S
    for worker in workers:
        worker.exited.wait(max(0.0, deadline - time.monotonic()))
    kill_all(workers)


def kill_all(workers: Sequence[Worker]) -> None:
    """Kill all workers and wait until they have exited."""
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.exited.wait(KILLED_S)


def _start_failed(error: Exception) -> WorkerDied:
    return WorkerDied(
        f"no worker process could be started: {error}",
        remedy="check the machine's memory and its limits on processes, threads and open files",
    )


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "was killed but has not exited"
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"exited with code {code}"
