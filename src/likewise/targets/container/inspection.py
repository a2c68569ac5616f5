"""What stands at the engine: containers by their labels, whoever deployed them."""

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
BUNDLE, MODEL, OPTIONS, URL = "likewise.bundle", "likewise.model", "likewise.options", "likewise.url"
DOOR, VERSION = "door", "version"
BUILT = "likewise-deployed"  # the repository of the images that deployments build for themselves
HELD = "likewise-held"  # of those whose own deployment has gone, while containers of another use them
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_RUNNING = ("running", "restarting", "paused")


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One of ours. status: the engine's word. memory: bytes, 0 for no limit. created, started: RFC 3339.

    image: its id. restarts: by the engine, since it was started by us.
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
    def of(cls, said: Mapping[str, Any]) -> ContainerState:
        """Of what `container inspect` says."""
        state = said["State"]
        return cls(
            said["Name"].removeprefix("/"),
            said["Config"].get("Labels") or {},
            state["Status"],
            int(said.get("RestartCount") or 0),
            int(state.get("ExitCode") or 0),
            bool(state.get("OOMKilled")),
            int(said["HostConfig"].get("Memory") or 0),
            said["Image"].removeprefix("sha256:"),
            said["Created"],
            state["StartedAt"],
        )

    @property
    def running(self) -> bool:
        """Whether it runs, or the engine is at starting it again."""
        return self.status in _RUNNING

    @property
    def model(self) -> ModelSpec:
        """What it serves."""
        return ModelSpec.from_dict(json.loads(self.labels[MODEL]))

    @property
    def options(self) -> dict[str, JsonValue]:
        """As it was deployed with."""
        said: dict[str, JsonValue] = json.loads(self.labels[OPTIONS])
        return said


@dataclass(frozen=True, slots=True)
class Standing:
    """All that stands of a deployment. versions: the one that answers, or should, first."""

    door: ContainerState | None
    versions: tuple[ContainerState, ...]

    @property
    def current(self) -> ContainerState | None:
        """The version that answers, or did last."""
        return self.versions[0] if self.versions else None

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the versions that run."""
        return tuple(each.name for each in self.versions if each.running)

    @property
    def claims(self) -> set[str]:
        """By whose plans it was made."""
        all_of_it = (*self.versions, *([self.door] if self.door else []))
        return {each.labels.get(CLAIM, "") for each in all_of_it}


def standing(program: Program, name: str) -> Standing:
    """The deployment called `name`; TargetUnavailable."""
    return _together(_containers(program, f"{NAME}={name}"))


def all_standing(program: Program) -> dict[str, Standing]:
    """Every deployment, by its name."""
    found: dict[str, list[ContainerState]] = {}
    for each in _containers(program, NAME):
        found.setdefault(each.labels[NAME], []).append(each)
    return {name: _together(found[name]) for name in sorted(found)}


def container(program: Program, name: str) -> ContainerState | None:
    """The one called `name`."""
    said = program.inspected("container", [name])
    return ContainerState.of(said[0]) if said else None


def has_volume(program: Program, name: str) -> bool:
    """Whether the deployment's volume is there."""
    return bool(program.inspected("volume", [door_name(name)]))


def _containers(program: Program, label: str) -> list[ContainerState]:
    names = program.listed("container", "ls", "--all", "--quiet", "--filter", f"label={label}")
    return [ContainerState.of(said) for said in program.inspected("container", names)]


def _together(containers: Sequence[ContainerState]) -> Standing:
    doors = [each for each in containers if each.labels.get(ROLE) == DOOR]
    versions = [each for each in containers if each.labels.get(ROLE) == VERSION]
    versions.sort(key=lambda each: (each.running, each.started), reverse=True)
    return Standing(doors[0] if doors else None, tuple(versions))


# --- names -----------------------------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """WrongUsage for what cannot be a deployment's name."""
    if not _NAME.fullmatch(name):
        raise WrongUsage(
            f"{name!r} cannot be a deployment's name",
            remedy="take up to 63 letters, digits, dots, hyphens and underscores; a letter or a digit first",
        )


def door_name(name: str) -> str:
    """Of the door's container, and of the volume."""
    return f"likewise-{name}-door"


def version_name(name: str, claim: str, image: str) -> str:
    """Of a version's container: the same for the same model, options and image."""
    return f"likewise-{name}-{sha256_json([claim, image])[7:19]}"
