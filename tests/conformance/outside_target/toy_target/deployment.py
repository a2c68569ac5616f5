"""One deployment: a folder, and the process that serves it.

The folder contains `version.json` (the current version, its URL and process id), `log`, and `lock`.  A starting process
and the process that starts it both hold the lock until the new process is ready or has exited, so that the next command
waits for them even if one is killed.  All versions share one listening socket, so no connection is refused when one
replaces another.
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
    """The deployment `name`, whether it exists or not."""

    def __init__(self, name: str) -> None:
        self.folder = data_home() / "toy" / name
        if self.folder.parent != data_home() / "toy":
            raise WrongUsage(f"{name!r} is not a valid deployment name", remedy="leave out slashes")

    @classmethod
    def all(cls) -> Iterator[tuple[str, Json]]:
        """The name and version of each existing deployment."""
        for path in sorted((data_home() / "toy").glob("*/version.json")):
            yield path.parent.name, json.loads(path.read_bytes())

    def version(self) -> Json | None:
        """The current version: spec, url, pid, since; None if nothing is deployed."""
        with suppress(FileNotFoundError):
            return dict(json.loads((self.folder / "version.json").read_bytes()))
        return None

    def write(self, version: Mapping[str, Any]) -> None:
        """Replace `version.json` atomically."""
        temporary = self.folder / "version.new"
        temporary.write_text(json.dumps(version))
        temporary.replace(self.folder / "version.json")

    def serve(self, spec: Json, before: Json | None) -> Json:
        """Serve `spec`; on the socket of the current version, if there is one.  Returns the step's outputs."""
        with self._locked() as lock:
            version = self.version()
            if version is not None and version["spec"] != spec and before is None:
                raise AlreadyDeployed(f"{self.folder.name!r} is deployed here", remedy="likewise update NAME MODEL")
            if version is None or version["spec"] != spec or not alive(version["pid"]):
                self._start(spec, version, lock)
        with self._locked():  # waits until the process is ready or has exited
            version = self.version()
            if version is None or version["spec"] != spec:
                raise DeployFailed(f"the process failed to start: {self._last_lines()}", remedy="correct the model")
        return {"url": version["url"], "log": str(self.folder / "log"), "pid": version["pid"]}

    def retire(self, before: Json) -> None:
        """Stop the previous version, which completes its requests."""
        stop(before["pid"], HAND_OVER)

    def remove(self) -> None:
        """Stop the current version, and remove the folder."""
        if (version := self.version()) is not None:
            stop(version["pid"], signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def undo(self, spec: Json, before: Json | None) -> None:
        """Undo `serve`; a version with another spec is left unchanged."""
        with self._locked():
            version = self.version()
        if version is None or (before is None and version["spec"] == spec):
            self.remove()
        elif before is not None and version["spec"] == spec:
            if alive(before["pid"]):
                self.write(before)
            else:
                self.serve(before["spec"], version)
            stop(version["pid"], HAND_OVER)

    def _start(self, spec: Json, version: Json | None, lock: int) -> None:
        options = spec["options"]
        shared = version is not None and alive(version["pid"])
        with shared_listener(version["pid"]) if shared else listen(options["host"], options["port"]) as listener:
            handles = listener.fileno(), lock
            command = [sys.executable, "-m", "toy_target.process", str(self.folder), *map(str, handles)]
            with (self.folder / "log").open("ab") as log:
                task = json.dumps(spec).encode()
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
    """Whether the process exists."""
    return Path(f"/proc/{pid}").exists()


def stop(pid: int, number: signal.Signals) -> None:
    """Signal the process, and wait until it has exited."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
    while alive(pid):
        time.sleep(0.02)


def share(listener: socket.socket) -> None:
    """Send the listener to every process that connects, as long as this process runs."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0toy-{os.getpid()}")
        server.listen()
        while True:
            connection, _ = server.accept()
            with connection:
                socket.send_fds(connection, [b"listener"], [listener.fileno()])


def shared_listener(pid: int) -> socket.socket:
    """The listener of another process."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"\0toy-{pid}")
        return socket.socket(fileno=socket.recv_fds(connection, 16, 1)[1][0])
