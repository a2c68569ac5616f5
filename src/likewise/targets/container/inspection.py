"""Finds the containers of deployments by their labels, including deployments of other users."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from likewise.core.digests import sha256_json
from likewise.core.errors import WrongUsage
from likewise.core.spec import ModelSpec
from likewise.targets.base import JsonValue
from likewise.targets.container.program import Program

NAME, ROLE, CLAIM = "likewise.deployment", "likewise.role", "likewise.claim"
BUNDLE, BUILD = "likewise.bundle", "likewise.build"
MODEL, OPTIONS, URL = "likewise.model", "likewise.options", "likewise.url"
LISTENER, VERSION = "door", "version"  # values of the label ROLE
BUILT = "likewise-deployed"  # image repository: images built for a deployment
RETAINED = "likewise-held"  # image repository: images of deleted deployments that other deployments use
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_RUNNING = ("running", "restarting", "paused")


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container of a deployment.

    status: as the engine reports it. memory: the limit in bytes, 0 for none. created, started: RFC 3339. image: its id.
    restarts: number of restarts by the engine since Likewise started it.
    """

    name: str
    labels: Mapping[str, str]
    status: str
    restarts: int
    exit_code: int
    killed_for_memory: bool
    memory: int
    image: str
    created: str
    started: str

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> ContainerState:
        """From the output of `container inspect`."""
        state = description["State"]
        return cls(
            description["Name"].removeprefix("/"),
            description["Config"].get("Labels") or {},
            state["Status"],
            int(description.get("RestartCount") or 0),
            int(state.get("ExitCode") or 0),
            bool(state.get("OOMKilled")),
            int(description["HostConfig"].get("Memory") or 0),
            description["Image"].removeprefix("sha256:"),
            description["Created"],
            state["StartedAt"],
        )

    @property
    def running(self) -> bool:
        """Whether it is running, or the engine is restarting it."""
        return self.status in _RUNNING

    @property
    def model(self) -> ModelSpec:
        """The model that it serves, from its labels."""
        return ModelSpec.from_dict(json.loads(self.labels[MODEL]))

    @property
    def options(self) -> dict[str, JsonValue]:
        """The options that it was deployed with, from its labels."""
        options: dict[str, JsonValue] = json.loads(self.labels[OPTIONS])
        return options


@dataclass(frozen=True, slots=True)
class DeploymentContainers:
    """All containers of a deployment. versions: running ones first, then by start time, newest first."""

    listener: ContainerState | None
    versions: tuple[ContainerState, ...]

    @property
    def current(self) -> ContainerState | None:
        """The version that serves, or the last one that did."""
        return self.versions[0] if self.versions else None

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the running versions."""
        return tuple(each.name for each in self.versions if each.running)

    @property
    def claims(self) -> set[str]:
        """The claims (digests of model and options) of the plans that created the containers."""
        containers = (*self.versions, *([self.listener] if self.listener else []))
        return {each.labels.get(CLAIM, "") for each in containers}


def deployment(program: Program, name: str) -> DeploymentContainers:
    """The containers of the deployment `name`.  Raises TargetUnavailable."""
    return _grouped(_containers(program, f"{NAME}={name}"))


def deployments(program: Program) -> dict[str, DeploymentContainers]:
    """The containers of every deployment, by its name.  Raises TargetUnavailable."""
    by_name: dict[str, list[ContainerState]] = {}
    for each in _containers(program, NAME):
        by_name.setdefault(each.labels[NAME], []).append(each)
    return {name: _grouped(by_name[name]) for name in sorted(by_name)}


def container(program: Program, name: str) -> ContainerState | None:
    """The container called `name`, None if there is none."""
    descriptions = program.inspected("container", [name])
    return ContainerState.of(descriptions[0]) if descriptions else None


def has_volume(program: Program, name: str) -> bool:
    """Whether the volume of the deployment `name` exists."""
    return bool(program.inspected("volume", [listener_name(name)]))


def _containers(program: Program, label: str) -> list[ContainerState]:
    names = program.listed("container", "ls", "--all", "--quiet", "--filter", f"label={label}")
    return [ContainerState.of(description) for description in program.inspected("container", names)]


def _grouped(containers: Sequence[ContainerState]) -> DeploymentContainers:
    listeners = [each for each in containers if each.labels.get(ROLE) == LISTENER]
    versions = [each for each in containers if each.labels.get(ROLE) == VERSION]
    versions.sort(key=lambda each: (each.running, each.started), reverse=True)
    return DeploymentContainers(listeners[0] if listeners else None, tuple(versions))


# --- names -----------------------------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """Raise WrongUsage for an invalid deployment name."""
    if not _NAME.fullmatch(name):
        raise WrongUsage(
            f"{name!r} is not a valid deployment name",
            remedy="use up to 63 letters, digits, dots, hyphens and underscores, starting with a letter or a digit",
        )


def listener_name(name: str) -> str:
    """The name of the listener container, and of the volume."""
    return f"likewise-{name}-door"


def version_name(name: str, claim: str, image: str) -> str:
    """The name of a version's container: the same for the same model, options and image."""
    return f"likewise-{name}-{sha256_json([claim, image])[7:19]}"
