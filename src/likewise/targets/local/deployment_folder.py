"""The folder of one deployment: its spec, bundles, log, lock and control socket.

    NAME/deployment.json   what is served, and at which address; replaced atomically
    NAME/bundles/          by build digest: the current bundle and the previous one
    NAME/log               log of the supervisor and the service
    NAME/control           the supervisor's control socket
    NAME/work              working directory of the processes
    NAME/lock              locked as long as the supervisor or one of its services is running

Imports only the standard library and modules that do the same, because the supervisor imports it.
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

from likewise.core.private_files import make_private, open_private, private_folder, write_private
from likewise.core.spec import ModelSpec

LOCK_POLL_S = 0.05
TAIL_LINES = 8
TAIL_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What to serve and how; this is what distinguishes one version of a deployment from another.

    model: its portable form, because each deployment has its own copy of the bundle. options: LocalOptions as JSON.
    """

    model: ModelSpec
    options: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The spec as JSON, for the plan, the control socket and `deployment.json`."""
        return {**self.model.portable(), "python": self.model.python, "options": dict(self.options)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`."""
        model = {name: value for name, value in document.items() if name != "options"}
        return cls(ModelSpec.from_dict(model), document["options"])


@dataclass(frozen=True, slots=True)
class Deployment:
    """The content of `deployment.json`.

    port, url: the actual ones, also where the spec leaves the port open. before: the build digest of the previous
    bundle.
    """

    spec: ServiceSpec
    host: str
    port: int
    url: str
    before: str | None = None

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`."""
        address = {name: value for name, value in document.items() if name != "asked"}
        return cls(ServiceSpec.from_dict(document["asked"]), **address)

    def as_dict(self) -> dict[str, Any]:
        """The deployment as JSON; the key of `spec` in the file is "asked"."""
        address = {name: value for name, value in asdict(self).items() if name != "spec"}
        return {"asked": self.spec.as_dict(), **address}

    @property
    def digests(self) -> set[str]:
        """The build digests of the bundles to retain."""
        return {self.spec.model.key, *([self.before] if self.before else [])}

    def before_of(self, spec: ServiceSpec) -> str | None:
        """What `before` is when `spec` takes the place of `self.spec`: unchanged if it has the same bundle."""
        return self.before if self.spec.model.key == spec.model.key else self.spec.model.key


class DeploymentFolder:
    """The folder of a deployment, whether it exists or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.log = path / "log"
        self.control = path / "control"
        self.work = path / "work"
        self.bundles = path / "bundles"

    def bundle(self, digest: str) -> Path:
        """The path for the bundle with this digest, whether it exists or not."""
        return self.bundles / digest.replace(":", "-")

    def create(self) -> Self:
        """Create the folder, accessible to this user only; so are its files, also those of earlier versions."""
        private_folder(self.path)
        self.work.mkdir(exist_ok=True)
        for path in self.path.glob("*"):
            make_private(path)
        return self

    def read(self) -> Deployment | None:
        """The content of `deployment.json`; None if there is no such file."""
        try:
            return Deployment.from_dict(json.loads((self.path / "deployment.json").read_bytes()))
        except FileNotFoundError:
            return None

    def write(self, deployment: Deployment | None) -> None:
        """Replace `deployment.json` atomically; None removes it."""
        path = self.path / "deployment.json"
        if deployment is None:
            path.unlink(missing_ok=True)
            return
        write_private(path, json.dumps(deployment.as_dict(), indent=2) + "\n")

    def claim(self, timeout_s: float) -> int | None:
        """Acquire the lock, waiting up to `timeout_s` seconds for the deployment's processes to exit.

        Returns its file descriptor, None if a process is still running.
        """
        handle = open_private(self.path / "lock")
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(handle)
                    return None
                time.sleep(LOCK_POLL_S)
            else:
                return handle

    def log_size(self) -> int:
        """The size of the log in bytes."""
        return self.log.stat().st_size if self.log.exists() else 0

    def tail(self, since: int) -> str:
        """The last TAIL_LINES lines of the log, only from what was written after byte offset `since`."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(since, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = file.read().decode(errors="replace").split("\n")
        except FileNotFoundError:
            return ""
        return "\n".join([line for line in lines if line.strip()][-TAIL_LINES:])

    def clear(self) -> None:
        """Remove everything except bundles, and the folder itself if it is then empty."""
        shutil.rmtree(self.work, ignore_errors=True)
        for path in self.path.glob("*"):
            if not path.is_dir():
                path.unlink(missing_ok=True)
        self.drop_if_empty()

    def drop_if_empty(self) -> None:
        """Remove the empty folders."""
        for folder in (self.bundles, self.path):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def remove(self) -> None:
        """Remove the folder with all its content."""
        if self.path.exists():
            shutil.rmtree(self.path)


def deployed_in(root: Path) -> list[DeploymentFolder]:
    """The folders in `root` that have a `deployment.json`, by name."""
    return [DeploymentFolder(path.parent) for path in sorted(root.glob("*/deployment.json"))]
