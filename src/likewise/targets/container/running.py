"""Runs, awaits, stops and removes the container of a version."""

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
from likewise.targets.container.inspection import ContainerState, listener_name
from likewise.targets.container.program import Program
from likewise.targets.http_client import health
from likewise.targets.listener import HAND_OVER

POLL_S = 0.1
StepParams = Mapping[str, Any]


def version_command(name: str, params: StepParams, options: ContainerTargetOptions) -> list[str]:
    """The engine's arguments to run the container of a version."""
    model = params["model"]
    labels = {
        inspection.BUNDLE: model["digest"],
        inspection.BUILD: model.get("build", ""),  # none in plans of earlier versions
        inspection.MODEL: json.dumps(model),
        inspection.OPTIONS: json.dumps(params["options"]),
    }
    network = "none" if options.isolated else options.network
    return [
        *run_command(name, inspection.VERSION, params, options, labels),
        # A stopped version leaves the listener to another version, or to itself after a restart.
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
    """The engine's arguments common to both kinds of containers: unprivileged, with a read-only file system."""
    labels = {inspection.NAME: params["name"], inspection.ROLE: role, inspection.CLAIM: params["claim"], **labels}
    return [
        "run",
        "--detach",
        f"--name={name}",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        f"--user={options.user}",
        f"--restart={options.restart}",
        f"--mount=type=volume,src={listener_name(params['name'])},dst={FOLDER}",
        *(f"--label={label}={value}" for label, value in labels.items()),
    ]


def await_ready(program: Program, name: str, url: str, wait_s: float) -> None:
    """Wait until the container logs READY and /ready returns 200.  Raises DeployFailed with its last log lines."""
    deadline = time.monotonic() + wait_s
    while True:
        container = inspection.container(program, name)
        if container is None or not container.running or container.restarts or container.status == "restarting":
            raise _failure(program, name, "exited" if container else "was removed", container)
        if READY in program.log(name, container.started) and health(url).served is not None:
            return
        if time.monotonic() > deadline:
            raise _failure(program, name, f"is not ready after {wait_s:.0f} s", container)
        time.sleep(POLL_S)


def _failure(program: Program, name: str, how: str, container: ContainerState | None) -> LikewiseError:
    log = program.log(name)[-2000:]
    if container is not None and container.killed_for_memory:
        return DeployFailed(
            f"the container {name} ran out of memory; last log lines: {log}", remedy="give it more: -C memory=4g"
        )
    code = f" with code {container.exit_code}" if container is not None and not container.running else ""
    return DeployFailed(
        f"the container {name} {how}{code}; last log lines: {log}", remedy="correct the cause given in the log"
    )


def stop_version(program: Program, name: str, options: ContainerTargetOptions) -> None:
    """Stop the container, which completes its requests; the engine kills it after `stop_timeout_s`."""
    seconds = options.stop_timeout_s
    program.do("stop", "--time", str(seconds), name, timeout_s=seconds + 60.0)


def remove_containers(program: Program, names: Sequence[str]) -> None:
    """Remove the containers.  Raises DeployFailed if one still exists afterwards."""
    for name in names:
        with contextlib.suppress(DeployFailed):  # the check below decides
            program.do("rm", "--force", name)
        if inspection.container(program, name) is not None:
            raise DeployFailed(
                f"{program.name} did not remove {name}", remedy=f"remove it with: {program.name} rm --force {name}"
            )
