"""Processes for the tests: started, awaited, read, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
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
    """Return once `done()` is true; it is called in a thread, as it may ask a server."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(done):
            await asyncio.sleep(PAUSE)


# --- ports -----------------------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nothing listens now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]


# --- commands that end -----------------------------------------------------------------------------------------------


def run(
    command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """A process that must end with `code`; env: all of its environment, or None for this process's own."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == code, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def likewise(
    *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, which must end with `code`."""
    return run([*LIKEWISE, *words], cwd=cwd, env=env, code=code)


# --- processes that run ----------------------------------------------------------------------------------------------


class Running:
    """A process of `running`; log: the file that it writes stderr to, and stdout too where that is no pipe."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def event(self, name: str) -> Any:
        """The value of the next line on stdout, which must be `{"name": value}` in JSON."""
        line = self._readline()
        event = json.loads(line)
        assert name in event, event
        return event[name]

    def document(self) -> dict[str, Any]:
        """The JSON document that a command prints with `--json`, though the process goes on."""
        text = self._readline()
        while text.count("{") != text.count("}"):
            text += self._readline()
        return dict(json.loads(text))

    def line(self, part: str) -> str:
        """The first line of the log with `part` in it, once it is there."""
        while True:
            ended = self.process.poll() is not None
            found = [line for line in self.log.read_text().splitlines(keepends=True) if part in line]
            if found and found[0].endswith("\n"):
                return found[0].rstrip("\n")
            assert not ended, self.log.read_text()[-4000:]
            time.sleep(PAUSE)

    def answers(self, url: str, status: int = 200) -> None:
        """Return once a GET of `url` is answered with `status`."""

        def answered() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            with suppress(httpx.TransportError):
                return httpx.get(url, timeout=PATIENCE).status_code == status
            return False

        until(answered, 2 * PATIENCE)

    def stop(self, sent: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(sent)
        return self.process.wait(PATIENCE)

    def _readline(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"ended with {self.process.wait(PATIENCE)}: {self.log.read_text()[-4000:]}"
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
    """A process, killed at the end if it has not ended.

    pipe: its stdout can be read; else it goes to the log too. group: it leads a process group, all of which is ended.
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
    """Whether the process runs; one that has ended and that its parent has not waited for does not."""
    return _stat(pid)[0] not in "ZX"


def children(pid: int, word: str = "") -> list[int]:
    """The processes that `pid` has started and that run, with `word` in their command line."""
    every = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return sorted(each for each in every if _parent(each) == pid and alive(each) and word in command_of(each))


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, nearest first."""
    own = children(pid)
    return own + [below for each in own for below in descendants(each)]


def command_of(pid: int) -> str:
    """A process's command line; empty where it has ended."""
    return _read(pid, "cmdline").replace("\0", " ")


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where it has ended."""
    pairs = [pair.partition("=") for pair in _read(pid, "environ").split("\0") if pair]
    return {name: value for name, _, value in pairs}


def resident_bytes(pid: int) -> int:
    """The memory that a process holds."""
    line = next(line for line in _read(pid, "status").splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """The fields of its status after its name; of one that is gone, those of a process that has ended."""
    return _read(pid, "stat").rpartition(")")[2].split() or ["X", "0"]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    except OSError:
        return ""
