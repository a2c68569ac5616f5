"""Runs the command line of the container engine, Docker or Podman: containers, volumes, images, logs.

In this package, "engine" means the container engine, not the engine that computes predictions.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from likewise.core.errors import DeployFailed, PortTaken, TargetUnavailable
from likewise.images.containers import ContainerEngine, find_engine, remedy_for
from likewise.images.oci import Platform, platform_named

TIMEOUT_S = 60.0  # of most commands
WORK_S = 600.0  # of commands that transfer or unpack an image
LOG_LINES = 40
DOCTOR = "run `likewise doctor` to see what this machine supports"
_TAKEN = ("address already in use", "port is already allocated")
_ENDS = {  # of containers, and what is shown of them
    "docker": ("die", "{{.Action}} {{.Actor.Attributes.exitCode}}"),
    "podman": ("died", "{{.Status}} {{.ContainerExitCode}}"),
}
_ARCHITECTURE = {"docker": "{{.Architecture}}", "podman": "{{.Host.Arch}}"}
Completed = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Program:
    """The command of a container engine that is running.

    lock: a locked file descriptor that its commands inherit, so that it stays locked until all of them have exited,
    even if this process is killed.
    """

    engine: ContainerEngine
    lock: int | None = None

    @classmethod
    def find(cls, name: str | None) -> Program:
        """The engine `name`; without a name, the first one that responds.  Raises TargetUnavailable."""
        return cls(find_engine(name))

    def locked(self, lock: int) -> Program:
        """A copy whose commands inherit `lock`."""
        return replace(self, lock=lock)

    @property
    def name(self) -> str:
        """`docker` or `podman`."""
        return self.engine.program

    def try_(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> Completed:
        """Run a command; returns its result, of any exit code.  Raises TargetUnavailable if it does not complete."""
        try:
            return subprocess.run(
                [self.name, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
                stdin=subprocess.DEVNULL,
                pass_fds=() if self.lock is None else (self.lock,),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TargetUnavailable(f"{self.name} {arguments[0]} did not complete: {error}", remedy=DOCTOR) from error

    def do(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> str:
        """Run a command that must succeed; returns its stdout.  Raises DeployFailed with its stderr, PortTaken."""
        done = self.try_(*arguments, timeout_s=timeout_s)
        if done.returncode == 0:
            return done.stdout
        why = done.stderr.strip()[-700:] or f"exit code {done.returncode}"
        if any(words in why for words in _TAKEN):
            raise PortTaken(
                f"{self.name}: {why}", remedy="choose another port with -C port=PORT, or leave it out to use a free one"
            )
        remedy = remedy_for(why) or f"correct the cause given in the message, or {DOCTOR}"
        raise DeployFailed(f"{self.name} {arguments[0]} failed: {why}", remedy=remedy)

    def listed(self, *arguments: str) -> list[str]:
        """The distinct lines that a listing prints.  Raises TargetUnavailable if the engine does not respond."""
        done = self.try_(*arguments)
        if done.returncode != 0:
            raise TargetUnavailable(f"{self.name} does not respond: {done.stderr.strip()[-300:]}", remedy=DOCTOR)
        return list(dict.fromkeys(done.stdout.split()))

    def inspected(self, kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """The output of `inspect` for those objects that exist.  kind: `container`, `image` or `volume`."""
        if not names:
            return []
        output = self.try_(kind, "inspect", *names).stdout
        return list(json.loads(output)) if output.strip().startswith("[") else []

    def log(self, container: str, since: str | None = None) -> str:
        """The last LOG_LINES lines of the container's log; since: RFC 3339, all lines from that time on instead."""
        which = ("--tail", str(LOG_LINES)) if since is None else ("--since", since)
        done = self.try_("logs", *which, container)
        return (done.stdout + done.stderr).strip()

    def last_end(self, container: str, since: str) -> str:
        """How the container last ended before the engine restarted it: `code 137, out of memory`; empty if not known.

        since: RFC 3339.  The engine remembers a limited number of events.
        """
        ended, shown = _ENDS[self.name]
        filters = [f"--filter={each}" for each in (f"container={container}", f"event={ended}", "event=oom")]
        period = (f"--since={since}", f"--until={time.time():.3f}")  # without an end, it would wait for more
        lines = self.try_("events", *period, *filters, f"--format={shown}").stdout.splitlines()
        at = max((n for n, line in enumerate(lines) if line.startswith(f"{ended} ")), default=None)
        if at is None:
            return ""
        memory = ", out of memory" if at and lines[at - 1].startswith("oom") else ""
        return f"code {lines[at].partition(' ')[2]}{memory}"

    def platform(self) -> Platform:
        """The platform of its containers."""
        return platform_named(self.do("info", "--format", _ARCHITECTURE[self.name]).strip())
