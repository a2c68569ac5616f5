"""The door's container and its volume: what holds a deployment's port."""

from __future__ import annotations

import json
import socket
import time

from likewise.core.errors import DeployFailed
from likewise.images.build import PORT
from likewise.targets.container import inspection
from likewise.targets.container.container_options import ContainerTargetOptions
from likewise.targets.container.door import OPEN
from likewise.targets.container.inspection import ContainerState, door_name
from likewise.targets.container.program import WORK_S, Program
from likewise.targets.container.running import LOOK_S, StepParams, remove_containers, run_command

DOOR_S = 60.0  # for a process without a model to start
ANY = "0.0.0.0"  # noqa: S104  `check_options` lets it through only where the user says so


def make_door(program: Program, params: StepParams, options: ContainerTargetOptions) -> None:
    name = door_name(params["name"])
    if not inspection.has_volume(program, params["name"]):
        uid, _, gid = options.user.partition(":")
        kind = [f"--opt={word}" for word in ("type=tmpfs", "device=tmpfs", f"o=mode=0700,uid={uid},gid={gid}")]
        program.do("volume", "create", f"--label={inspection.NAME}={params['name']}", *kind, name)
    port = options.port or _free_port(options.host)
    host = "127.0.0.1" if options.host == ANY else options.host  # where callers here ask
    labels = {inspection.URL: f"http://{host}:{port}", inspection.OPTIONS: json.dumps(params["options"])}
    inner = (options.host, str(port)) if options.network == "host" else (ANY, str(PORT))
    published = [] if options.network == "host" else [f"--publish={options.host}:{port}:{PORT}"]
    program.do(
        *run_command(name, inspection.DOOR, params, options, labels),
        *([f"--network={options.network}"] if options.network else []),
        *published,
        "--entrypoint=python",
        params["image"],
        "-m",
        "likewise.targets.container.door",
        *inner,
        patience_s=WORK_S,
    )


def open_door(program: Program, name: str) -> ContainerState:
    """Once it holds the port; DeployFailed, with its last lines."""
    until = time.monotonic() + DOOR_S
    while True:
        held = inspection.container(program, door_name(name))
        said = "" if held is None else program.log(held.name, held.started)
        if held is not None and held.running and OPEN in said:
            return held
        if held is None or not held.running or held.restarts or time.monotonic() > until:
            if held is not None:
                said = program.log(held.name)  # of all its starts: the last may have written nothing yet
            raise DeployFailed(
                f"the door of {name!r} does not open: {said[-500:]}",
                remedy="where the port is taken choose another: -C port=PORT",
            )
        time.sleep(LOOK_S)


def remove_door(program: Program, name: str) -> None:
    if inspection.container(program, door_name(name)) is not None:
        program.do("stop", "--time", "5", door_name(name))
        remove_containers(program, [door_name(name)])
    if inspection.has_volume(program, name):
        program.do("volume", "rm", door_name(name))


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
