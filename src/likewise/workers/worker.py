"""One worker, seen from the server's process: started, loaded, asked, watched, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import cast

from likewise.core.engine import EngineSpec
from likewise.core.errors import LikewiseError, WorkerDied
from likewise.workers.channel import GONE, Channel
from likewise.workers.messages import CLOSE, unpack

NOTICE_S = 2.0  # its sockets are closed: so soon it must have ended, or it is killed
CLOSE_S = 5.0  # for the engine's `close`
KILLED_S = 10.0  # a killed process that is still there after that hangs in the kernel


class Worker:
    """A process with an engine in it; it begins to load when this is created.

    gone: set when the process has ended and nothing of it is left. worked: it was given work, for whoever sets it.
    """

    def __init__(self, opener: bytes, start_timeout_s: float, environment: dict[str, str]) -> None:
        """opener: the first message. start_timeout_s: from the process's start to its engine."""
        self.gone = threading.Event()
        self.worked = False
        self._start_timeout_s = start_timeout_s
        self._born = time.monotonic()
        try:
            self._start(environment)
        except OSError as error:
            raise _no_process(error) from error
        self.pid = self._process.pid
        self._run.say(opener)
        try:
            threading.Thread(target=self._watch, name=f"likewise-watch-{self.pid}", daemon=True).start()
        except RuntimeError as error:  # no more threads
            self.kill()
            self._watch()
            raise _no_process(error) from error

    @property
    def ending(self) -> str:
        """How the process ended, once it is gone."""
        return f"the worker process {self.pid} {_ending(self._process.returncode)}"

    def load(self) -> EngineSpec:
        """Wait for the engine. Raises what loading it raised, or WorkerDied; the process ends then."""
        left = self._born + self._start_timeout_s - time.monotonic()
        try:
            reply = self._run.hear(max(0.0, left))
        except GONE:
            raise self.death("loaded the model") from None
        if reply is None:
            self.kill()
            raise WorkerDied(
                f"a worker did not load the model within {self._start_timeout_s:g} s",
                remedy="allow it more time, or start fewer workers",
            )
        spec = cast("EngineSpec | LikewiseError", unpack(reply))
        if isinstance(spec, LikewiseError):
            raise spec
        return spec

    def prepare(self, message: bytes) -> bytes:
        """The answer to packed items. Raises WorkerDied."""
        return self._ask(self._prepare, message, "prepared this item")

    def run(self, message: bytes) -> bytes:
        """The answer to packed works. Raises WorkerDied."""
        return self._ask(self._run, message, "ran this item")

    def death(self, doing: str) -> WorkerDied:
        """How the process ended; ends it where it is still there with its sockets closed."""
        if not self.gone.wait(NOTICE_S):
            self.kill()
            self.gone.wait(KILLED_S)
        return WorkerDied(
            f"{self.ending} while it {doing}",
            remedy="send the item again; if it happens often, look into the server's log and at the machine's memory",
        )

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def ask_to_end(self) -> None:
        """Let it close its engine and end; one that is loading or running ends now."""
        if not self._run.say(CLOSE):
            self.kill()

    def _ask(self, channel: Channel, message: bytes, doing: str) -> bytes:
        try:
            return channel.ask(message)
        except GONE:
            raise self.death(doing) from None

    def _start(self, environment: dict[str, str]) -> None:
        with ExitStack() as opened:
            pairs = [socket.socketpair() for _ in range(2)]
            for one in (end for pair in pairs for end in pair):
                opened.callback(one.close)
            theirs, self._lifeline = os.pipe()
            opened.callback(os.close, self._lifeline)
            with os.fdopen(theirs, "rb") as lifeline:
                handles = [pairs[0][1].fileno(), pairs[1][1].fileno(), lifeline.fileno()]
                self._process = _spawned(handles, environment)
            opened.pop_all()
        for _, end in pairs:
            end.close()
        self._run, self._prepare = (Channel(mine) for mine, _ in pairs)

    def _watch(self) -> None:
        self._process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what the model started goes with it
        for channel in (self._run, self._prepare):
            channel.cut()
        os.close(self._lifeline)
        self.gone.set()


def _spawned(handles: Sequence[int], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "likewise.workers.child", *map(str, handles)],
        stdin=subprocess.DEVNULL,
        stdout=2,  # what a model prints must not mix with what the command prints
        pass_fds=handles,
        env=environment,
        start_new_session=True,  # a Ctrl-C in the terminal is the server's alone
    )


def end_all(workers: Sequence[Worker]) -> None:
    """End them together: those that wait for work may close their engines first."""
    for worker in workers:
        worker.ask_to_end()
    deadline = time.monotonic() + CLOSE_S
    for worker in workers:
        worker.gone.wait(max(0.0, deadline - time.monotonic()))
    kill_all(workers)


def kill_all(workers: Sequence[Worker]) -> None:
    """End them together, now."""
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.gone.wait(KILLED_S)


def _no_process(error: Exception) -> WorkerDied:
    return WorkerDied(
        f"no worker process could be started: {error}",
        remedy="look at the machine's memory and at its limits of processes, threads and open files",
    )


def _ending(code: int | None) -> str:
    if code is None:
        return "does not end, though it was killed,"
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with code {code}"
