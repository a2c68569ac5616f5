"""A version's container: how it is run, awaited, stopped and removed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from likewise.core.errors import DeployFailed, LikewiseError
from likewise.targets.container import inspection
from likewise.targets.container.container_options import ContainerTargetOptions
from likewise.targets.container.door import FOLDER, READY
from likewise.targets.container.inspection import ContainerState, door_name
from likewise.targets.container.program import Program
from likewise.targets.http_client import served_digest
from likewise.targets.listener import HAND_OVER

LOOK_S = 0.1
StepParams = Mapping[str, Any]


def version_command(name: str, params: StepParams, options: ContainerTargetOptions) -> list[str]:
    model = params["model"]
    labels = {
        inspection.BUNDLE: model["digest"],
        inspection.MODEL: json.dumps(model),
        inspection.OPTIONS: json.dumps(params["options"]),
    }
    network = "none" if options.isolated else options.network
    return [
        *run_command(name, inspection.VERSION, params, options, labels),
        # Another version, or the same one when it comes back, takes who comes from then on.
        f"--stop-signal={HAND_OVER.name}",
        f"--stop-timeout={options.stop_timeout_s}",
        *([f"--network={network}"] if network else []),
        *([f"--memory={options.memory}"] if options.memory else []),
        *([f"--cpus={options.cpus}"] if options.cpus else []),
        *(f"--env={variable}={value}" for variable, value in options.env.items()),
        "--entrypoint=python",
        params["image"],
        "-m",
        "likewise.targets.container.inside",
    ]


def run_command(
    name: str, role: str, params: StepParams, options: ContainerTargetOptions, labels: Mapping[str, str]
) -> list[str]:
    """What both kinds have in common: no rights, nothing to write on but memory."""
    said = {inspection.NAME: params["name"], inspection.ROLE: role, inspection.CLAIM: params["claim"], **labels}
    return [
        "run",
        "--detach",
        f"--name={name}",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        f"--user={options.user}",
        f"--restart={options.restart}",
        f"--mount=type=volume,src={door_name(params['name'])},dst={FOLDER}",
        *(f"--label={label}={value}" for label, value in said.items()),
    ]


def await_ready(program: Program, name: str, url: str, wait_s: float) -> None:
    """Until it has said that it is warm, and /ready answers 200; DeployFailed with its last lines."""
    until = time.monotonic() + wait_s
    while True:
        there = inspection.container(program, name)
        if there is None or not there.running or there.restarts or there.status == "restarting":
            raise _failed(program, name, "has ended" if there else "is gone", there)
        if READY in program.log(name, there.started) and served_digest(url, "/ready") is not None:
            return
        if time.monotonic() > until:
            raise _failed(program, name, f"is not ready after {wait_s:.0f} s", there)
        time.sleep(LOOK_S)


def _failed(program: Program, name: str, how: str, there: ContainerState | None) -> LikewiseError:
    said = program.log(name)[-2000:]
    if there is not None and there.killed_for_memory:
        return DeployFailed(f"{name} was killed for want of memory: {said}", remedy="give it more: -C memory=4g")
    code = f" with {there.exit_code}" if there is not None and not there.running else ""
    return DeployFailed(f"the container {name} {how}{code}; its last lines: {said}", remedy="they say why")


def stop_version(program: Program, name: str, options: ContainerTargetOptions) -> None:
    """It answers what it has; one that does not end in time is killed by the engine."""
    seconds = options.stop_timeout_s
    program.do("stop", "--time", str(seconds), name, patience_s=seconds + 60.0)


def remove_containers(program: Program, names: Sequence[str]) -> None:
    for name in names:
        with contextlib.suppress(DeployFailed):  # that it is gone is what counts, and is looked at
            program.do("rm", "--force", name)
        if inspection.container(program, name) is not None:
            raise DeployFailed(f"{program.name} does not remove {name}", remedy=f"{program.name} rm --force {name}")
