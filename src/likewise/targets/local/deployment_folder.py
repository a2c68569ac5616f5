"""The folder of one deployment: what is asked of it, its bundles, its log, its lock and its control socket.

    NAME/deployment.json   what is served, and where; written whole
    NAME/bundles/          by digest: the one that is served and the one before it
    NAME/log               of supervisor and service
    NAME/control           the supervisor's socket
    NAME/work              the processes' current folder
    NAME/lock              held by the supervisor and its services while any of them lives

The standard library and modules of it alone: the supervisor imports it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from likewise.core.spec import ModelSpec

LOCK_LOOK_S = 0.05
TAIL_LINES = 8
TAIL_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What is to be served and how: all that tells one version of a deployment from another.

    model: as it is portable, as each deployment has a copy. options: of LocalOptions, as JSON.
    """

    model: ModelSpec
    options: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For the plan, the control socket and the file."""
        return {**self.model.portable(), "options": dict(self.options)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """What `as_dict` gave."""
        model = {name: value for name, value in document.items() if name != "options"}
        return cls(ModelSpec.from_dict(model), document["options"])


@dataclass(frozen=True, slots=True)
class Deployment:
    """The file `deployment.json`. port, url: the real ones; before: the digest of the version before this one."""

    asked: ServiceSpec
    host: str
    port: int
    url: str
    before: str | None = None

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Self:
        """What `as_dict` gave."""
        return cls(**{**said, "asked": ServiceSpec.from_dict(said["asked"])})

    def as_dict(self) -> dict[str, Any]:
        """For the file."""
        return {**asdict(self), "asked": self.asked.as_dict()}

    @property
    def digests(self) -> set[str]:
        """Of the bundles that must stay."""
        return {self.asked.model.digest, *([self.before] if self.before else [])}


class Home:
    """The folder, whether it is there or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.control = folder / "control"
        self.work = folder / "work"
        self.bundles = folder / "bundles"

    def bundle(self, digest: str) -> Path:
        """Where the bundle of this digest lies, or would."""
        return self.bundles / digest.replace(":", "-")

    def make(self) -> None:
        """The folder, this user's alone."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.work.mkdir(exist_ok=True)

    def read(self) -> Deployment | None:
        """What stands here; None for nothing."""
        try:
            return Deployment.from_dict(json.loads((self.folder / "deployment.json").read_bytes()))
        except FileNotFoundError:
            return None

    def write(self, deployment: Deployment | None) -> None:
        """Replace the file at once; None removes it."""
        path = self.folder / "deployment.json"
        if deployment is None:
            path.unlink(missing_ok=True)
            return
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(deployment.as_dict(), indent=2) + "\n")
        beside.replace(path)

    def claim(self, patience_s: float) -> int | None:
        """The lock as a file descriptor, once no process of this deployment lives; None where one stays."""
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(handle)
                    return None
                time.sleep(LOCK_LOOK_S)
            else:
                return handle

    def log_size(self) -> int:
        """Bytes in the log."""
        return self.log.stat().st_size if self.log.exists() else 0

    def tail(self, since: int) -> str:
        """The last lines of the log that were written after its byte `since`."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(since, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = file.read().decode(errors="replace").split("\n")
        except FileNotFoundError:
            return ""
        return "\n".join([line for line in lines if line.strip()][-TAIL_LINES:])

    def clear(self) -> None:
        """Remove what is not a bundle, and the folder where nothing else is in it."""
        for name in ("deployment.json", "deployment.new", "log", "log.1", "control", "lock"):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)
        self.drop_if_empty()

    def drop_if_empty(self) -> None:
        """Remove the folders that hold nothing."""
        for folder in (self.bundles, self.folder):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def remove(self) -> None:
        """Remove all of it."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
