"""The listener container, which owns a deployment's port, and its volume."""

from __future__ import annotations

import json
import socket
import time

from likewise.core.errors import DeployFailed
from likewise.images.build import PORT
from likewise.targets.container import inspection
from likewise.targets.container.container_options import ContainerTargetOptions
from likewise.targets.container.door import OPEN
from likewise.targets.container.inspection import ContainerState, listener_name
from likewise.targets.container.program import WORK_S, Program
from likewise.targets.container.running import POLL_S, StepParams, remove_containers, run_command

START_S = 60.0  # for a process without a model to start
ANY = "0.0.0.0"  # noqa: S104  `check_options` requires the option insecure for it


def create_listener(program: Program, params: StepParams, options: ContainerTargetOptions) -> None:
    """Create the volume if it is missing, and run the listener container."""
    name = listener_name(params["name"])
    if not inspection.has_volume(program, params["name"]):
        uid, _, gid = options.user.partition(":")
        volume_type = [f"--opt={word}" for word in ("type=tmpfs", "device=tmpfs", f"o=mode=0700,uid={uid},gid={gid}")]
        program.do("volume", "create", f"--label={inspection.NAME}={params['name']}", *volume_type, name)
    port = options.port or _free_port(options.host)
    host = "127.0.0.1" if options.host == ANY else options.host  # the address for clients on this machine
    labels = {inspection.URL: f"http://{host}:{port}", inspection.OPTIONS: json.dumps(params["options"])}
    inner = (options.host, str(port)) if options.network == "host" else (ANY, str(PORT))
    published = [] if options.network == "host" else [f"--publish={options.host}:{port}:{PORT}"]
    program.do(
        *run_command(name, inspection.LISTENER, params, options, labels),
        *([f"--network={options.network}"] if options.network else []),
        *published,
        "--entrypoint=python",
        params["image"],
        "-m",
        "likewise.targets.container.door",
        *inner,
        timeout_s=WORK_S,
    )


def await_listener(program: Program, name: str) -> ContainerState:
    """Wait until the listener container owns the port.  Raises DeployFailed with its last log lines."""
    deadline = time.monotonic() + START_S
    while True:
        container = inspection.container(program, listener_name(name))
        log = "" if container is None else program.log(container.name, container.started)
        if container is not None and container.running and OPEN in log:
            return container
        if container is None or not container.running or container.restarts or time.monotonic() > deadline:
            if container is not None:
                log = program.log(container.name)  # of all its starts: the last one may not have logged anything yet
            raise DeployFailed(
                f"the listener container of {name!r} failed to start: {log[-500:]}",
                remedy="if the port is in use, choose another: -C port=PORT",
            )
        time.sleep(POLL_S)


def remove_listener(program: Program, name: str) -> None:
    """Remove the listener container and the volume, if they exist."""
    if inspection.container(program, listener_name(name)) is not None:
        program.do("stop", "--time", "5", listener_name(name))
        remove_containers(program, [listener_name(name)])
    if inspection.has_volume(program, name):
        program.do("volume", "rm", listener_name(name))


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
