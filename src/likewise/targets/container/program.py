"""Docker's or Podman's command, asked by lists of arguments: containers, volumes, images, logs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from likewise.core.errors import DeployFailed, PortTaken, TargetUnavailable
from likewise.images.containers import ContainerEngine, find_engine
from likewise.images.oci import Platform, platform_named

PATIENCE_S = 60.0  # for a question
WORK_S = 600.0  # for what moves an image
LOG_LINES = 40
DOCTOR = "likewise doctor tells what this machine can run"
_TAKEN = ("address already in use", "port is already allocated")
_ARCHITECTURE = {"docker": "{{.Architecture}}", "podman": "{{.Host.Arch}}"}
Said = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Program:
    """One that answered. lock: a handle that its processes hold too, so that what a killed process began is seen."""

    engine: ContainerEngine
    lock: int | None = None

    @classmethod
    def find(cls, name: str | None) -> Program:
        """The one that is named, else the first that answers; TargetUnavailable."""
        return cls(find_engine(name))

    def locked(self, lock: int) -> Program:
        """The same, whose processes hold `lock`."""
        return replace(self, lock=lock)

    @property
    def name(self) -> str:
        """`docker` or `podman`."""
        return self.engine.program

    def try_(self, *arguments: str, patience_s: float = PATIENCE_S) -> Said:
        """One command, whatever comes of it; TargetUnavailable where nothing does."""
        held = () if self.lock is None else (self.lock,)
        try:
            return subprocess.run(
                [self.name, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=patience_s,
                check=False,
                stdin=subprocess.DEVNULL,
                pass_fds=held,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TargetUnavailable(f"{self.name} {arguments[0]} gave no answer: {error}", remedy=DOCTOR) from error

    def do(self, *arguments: str, patience_s: float = PATIENCE_S) -> str:
        """What it wrote; DeployFailed with its own words, PortTaken."""
        done = self.try_(*arguments, patience_s=patience_s)
        if done.returncode == 0:
            return done.stdout
        why = done.stderr.strip()[-700:] or f"code {done.returncode}"
        if any(words in why for words in _TAKEN):
            raise PortTaken(f"{self.name}: {why}", remedy="choose another port: -C port=PORT; or leave it out")
        raise DeployFailed(f"{self.name} {arguments[0]} fails: {why}", remedy=f"its words say why; {DOCTOR}")

    def listed(self, *arguments: str) -> list[str]:
        """The lines of a listing; TargetUnavailable where the engine does not answer."""
        done = self.try_(*arguments)
        if done.returncode != 0:
            raise TargetUnavailable(f"{self.name} does not answer: {done.stderr.strip()[-300:]}", remedy=DOCTOR)
        return list(dict.fromkeys(done.stdout.split()))

    def inspected(self, kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """What it knows of those that are there: kind `container`, `image` or `volume`."""
        if not names:
            return []
        said = self.try_(kind, "inspect", *names).stdout
        return list(json.loads(said)) if said.strip().startswith("[") else []

    def log(self, container: str, since: str | None = None) -> str:
        """What it wrote, its last LOG_LINES lines; since: RFC 3339, all from then on."""
        which = ("--tail", str(LOG_LINES)) if since is None else ("--since", since)
        done = self.try_("logs", *which, container)
        return (done.stdout + done.stderr).strip()

    def platform(self) -> Platform:
        """What its containers run on."""
        return platform_named(self.do("info", "--format", _ARCHITECTURE[self.name]).strip())
