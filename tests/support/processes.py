"""Starts, awaits, reads and stops processes for tests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from tests.support.waiting import PATIENCE, PAUSE, until

LIKEWISE = (sys.executable, "-m", "likewise.cli")


# --- waiting ---------------------------------------------------------------------------------------------------------


async def until_async(done: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Return when `done()` is true; it is called in a thread because it may query a server."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(done):
            await asyncio.sleep(PAUSE)


# --- ports -----------------------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are currently free."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def free_port() -> int:
    """A port of 127.0.0.1 that is currently free."""
    return free_ports(1)[0]


# --- commands --------------------------------------------------------------------------------------------------------


def run(
    command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a process that must exit with `code`; env: its complete environment, this process's if None."""
    completed = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=900)
    assert completed.returncode == code, f"{command}\n{completed.stdout[-2000:]}\n{completed.stderr[-4000:]}"
    return completed


def likewise(
    *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run `likewise` in its own process, which must exit with `code`."""
    return run([*LIKEWISE, *words], cwd=cwd, env=env, code=code)


# --- background processes --------------------------------------------------------------------------------------------


class Running:
    """A process started by `running`; log: the file that has its stderr, and its stdout unless that is a pipe."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def event(self, name: str) -> Any:
        """The value from the next line on stdout, which must be the JSON object `{"name": value}`."""
        line = self._readline()
        event = json.loads(line)
        assert name in event, event
        return event[name]

    def document(self) -> dict[str, Any]:
        """The JSON document that a command prints with `--json` while it continues to run."""
        text = self._readline()
        while text.count("{") != text.count("}"):
            text += self._readline()
        return dict(json.loads(text))

    def line(self, part: str) -> str:
        """Wait for a complete line of the log that contains `part`; returns the first."""
        while True:
            exited = self.process.poll() is not None
            lines = [line for line in self.log.read_text().splitlines(keepends=True) if part in line]
            if lines and lines[0].endswith("\n"):
                return lines[0].rstrip("\n")
            assert not exited, self.log.read_text()[-4000:]
            time.sleep(PAUSE)

    def wait_for_response(self, url: str, status: int = 200) -> None:
        """Return when a GET of `url` has this status."""

        def responded() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            with suppress(httpx.TransportError):
                return httpx.get(url, timeout=PATIENCE).status_code == status
            return False

        until(responded, 2 * PATIENCE)

    def stop(self, sent: int = signal.SIGTERM) -> int:
        """Send a signal and wait; returns the exit code."""
        self.process.send_signal(sent)
        return self.process.wait(PATIENCE)

    def _readline(self) -> str:
        assert self.process.stdout is not None
        overdue = threading.Timer(4 * PATIENCE, self.process.kill)
        overdue.start()
        line = self.process.stdout.readline()
        overdue.cancel()
        assert line, f"exited with {self.process.wait(PATIENCE)}: {self.log.read_text()[-4000:]}"
        return line


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    group: bool = False,
    pipe: bool = True,
) -> Iterator[Running]:
    """Run a process in the background; it is killed at the end if it still runs.

    pipe: stdout is readable; otherwise it goes to the log. group: run it as a process group, and kill the whole group.
    """
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE if pipe else stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=cwd,
            env=env,
            start_new_session=group,
        )
    try:
        yield Running(process, log)
    finally:
        if group:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.communicate()


# --- other processes -------------------------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    """Whether the process is running; a zombie is not."""
    return _stat(pid)[0] not in "ZX"


def children(pid: int, word: str = "") -> list[int]:
    """The running child processes of `pid` whose command line contains `word`."""
    every = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return sorted(each for each in every if _parent(each) == pid and alive(each) and word in command_of(each))


def descendants(pid: int) -> list[int]:
    """The running descendants of `pid`, children first."""
    own = children(pid)
    return own + [below for each in own for below in descendants(each)]


def command_of(pid: int) -> str:
    """A process's command line; empty if it has exited."""
    return _read(pid, "cmdline").replace("\0", " ")


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty if it has exited."""
    pairs = [pair.partition("=") for pair in _read(pid, "environ").split("\0") if pair]
    return {name: value for name, _, value in pairs}


def resident_bytes(pid: int) -> int:
    """A process's resident memory (VmRSS)."""
    line = next(line for line in _read(pid, "status").splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the state is `X` (dead) if the process does not exist."""
    return _read(pid, "stat").rpartition(")")[2].split() or ["X", "0"]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    except OSError:
        return ""
