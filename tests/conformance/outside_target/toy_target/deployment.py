"""One deployment: a folder, and the process that answers.

The folder holds `version.json` (what answers, where, and by which process), `log`, and `lock`.  A process that starts
holds the lock until it answers or has ended, and so does whoever starts it: killed in the middle, neither is met there
by the next.  All versions share one listening socket, so no caller is refused while one follows another.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from likewise.core.errors import AlreadyDeployed, DeployFailed, WrongUsage
from likewise.receipts import data_home
from likewise.server.port import listen
from likewise.targets.listener import HAND_OVER

Json = dict[str, Any]


class Deployment:
    """The deployment `name`, whether it is there or not."""

    def __init__(self, name: str) -> None:
        self.folder = data_home() / "toy" / name
        if self.folder.parent != data_home() / "toy":
            raise WrongUsage(f"{name!r} cannot be a deployment's name", remedy="leave out slashes")

    @classmethod
    def all(cls) -> Iterator[tuple[str, Json]]:
        """Name and version of each."""
        for path in sorted((data_home() / "toy").glob("*/version.json")):
            yield path.parent.name, json.loads(path.read_bytes())

    def version(self) -> Json | None:
        """What answers: wanted, url, pid, since."""
        with suppress(FileNotFoundError):
            return dict(json.loads((self.folder / "version.json").read_bytes()))
        return None

    def write(self, version: Mapping[str, Any]) -> None:
        """Replace the file at once."""
        beside = self.folder / "version.new"
        beside.write_text(json.dumps(version))
        beside.replace(self.folder / "version.json")

    def serve(self, wanted: Json, before: Json | None) -> Json:
        """Have `wanted` answer; on the socket of what answers now, where anything does."""
        with self._locked() as lock:
            version = self.version()
            if version is not None and version["wanted"] != wanted and before is None:
                raise AlreadyDeployed(f"{self.folder.name!r} is deployed here", remedy="likewise update NAME MODEL")
            if version is None or version["wanted"] != wanted or not alive(version["pid"]):
                self._start(wanted, version, lock)
        with self._locked():  # once the process is ready, or has ended
            version = self.version()
            if version is None or version["wanted"] != wanted:
                raise DeployFailed(f"it does not start: {self._last_lines()}", remedy="correct the model")
        return {"url": version["url"], "log": str(self.folder / "log"), "pid": version["pid"]}

    def retire(self, before: Json) -> None:
        """The version before answers what it has begun, and ends."""
        end(before["pid"], HAND_OVER)

    def remove(self) -> None:
        """End what answers, and remove the folder."""
        if (version := self.version()) is not None:
            end(version["pid"], signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def undo(self, wanted: Json, before: Json | None) -> None:
        """Take back `serve`; another version than the one that it wanted is left alone."""
        with self._locked():
            version = self.version()
        if version is None or (before is None and version["wanted"] == wanted):
            self.remove()
        elif before is not None and version["wanted"] == wanted:
            if alive(before["pid"]):
                self.write(before)
            else:
                self.serve(before["wanted"], version)
            end(version["pid"], HAND_OVER)

    def _start(self, wanted: Json, version: Json | None, lock: int) -> None:
        options = wanted["options"]
        taken = version is not None and alive(version["pid"])
        with borrowed(version["pid"]) if taken else listen(options["host"], options["port"]) as listener:
            handles = listener.fileno(), lock
            command = [sys.executable, "-m", "toy_target.process", str(self.folder), *map(str, handles)]
            with (self.folder / "log").open("ab") as log:
                task = json.dumps(wanted).encode()
                subprocess.run(command, input=task, stdout=log, stderr=log, pass_fds=handles, check=True)

    def _last_lines(self) -> str:
        return "\n".join((self.folder / "log").read_text().splitlines()[-8:])

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno()


def alive(pid: int) -> bool:
    """Whether the process is there."""
    return Path(f"/proc/{pid}").exists()


def end(pid: int, how: signal.Signals) -> None:
    """Signal the process, and wait until it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, how)
    while alive(pid):
        time.sleep(0.02)


def lend(listener: socket.socket) -> None:
    """Hand the listener of this process to whoever connects, for as long as it lives."""
    with socket.socket(socket.AF_UNIX) as near:
        near.bind(f"\0toy-{os.getpid()}")
        near.listen()
        while True:
            other, _ = near.accept()
            with other:
                socket.send_fds(other, [b"listener"], [listener.fileno()])


def borrowed(pid: int) -> socket.socket:
    """The listener of another process."""
    with socket.socket(socket.AF_UNIX) as near:
        near.connect(f"\0toy-{pid}")
        return socket.socket(fileno=socket.recv_fds(near, 16, 1)[1][0])
