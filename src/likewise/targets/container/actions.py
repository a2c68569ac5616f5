"""The idempotent implementation of each plan step, and how it is undone.

Parameters that need an explanation: claim, the digest of the model and options of the plan; stood, the versions that
were running when the plan was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from likewise.core.errors import AlreadyDeployed
from likewise.core.option_fields import coerce
from likewise.core.spec import ModelSpec
from likewise.targets.base import Outputs
from likewise.targets.container import inspection
from likewise.targets.container.container_options import ContainerTargetOptions
from likewise.targets.container.image import ensure_image, remove_image
from likewise.targets.container.inspection import version_name
from likewise.targets.container.listener import await_listener, create_listener, remove_listener
from likewise.targets.container.program import WORK_S, Program
from likewise.targets.container.running import await_ready, remove_containers, stop_version, version_command
from likewise.targets.listener import HAND_OVER

StepParams = Mapping[str, Any]


def image(program: Program, params: StepParams) -> Outputs:
    """Ensure that the engine has the image."""
    _check_unclaimed(program, params)
    return ensure_image(program, params["name"], ModelSpec.from_dict(params["model"]), _options(params))


def undo_image(program: Program, params: StepParams) -> None:
    """Remove the image if it was built for this deployment and no container uses it."""
    remove_image(program, params["name"])


def listener(program: Program, params: StepParams) -> Outputs:
    """Ensure that the listener container is running and owns the port."""
    _check_unclaimed(program, params)
    name, options = params["name"], _options(params)
    existing = inspection.deployment(program, name).listener
    if existing is None:
        create_listener(program, params, options)
    elif not existing.running:
        program.do("start", existing.name)
    running = await_listener(program, name)
    return {"url": running.labels[inspection.URL], "door": running.name}


def undo_listener(program: Program, params: StepParams) -> None:
    """Remove the listener container if no version is left."""
    current = inspection.deployment(program, params["name"])
    if not current.versions and current.claims <= {params["claim"]}:
        remove_listener(program, params["name"])


def start(program: Program, params: StepParams) -> Outputs:
    """Ensure that the version is running and ready, in addition to the previous one."""
    _check_unclaimed(program, params)
    options, name = _options(params), version_name(params["name"], params["claim"], params["image"])
    existing = inspection.container(program, name)
    if existing is None:
        program.do(*version_command(name, params, options), timeout_s=WORK_S)
    elif not existing.running:
        program.do("start", name)
    await_ready(program, name, params["url"], options.start_timeout_s)
    return {"container": name, "url": params["url"]}


def undo_start(program: Program, params: StepParams) -> None:
    """Remove the version, unless it was running before."""
    name = version_name(params["name"], params["claim"], params["image"])
    if name not in params["stood"] and inspection.container(program, name) is not None:
        stop_version(program, name, _options(params))
        remove_containers(program, [name])


def retire(program: Program, params: StepParams) -> Outputs:
    """Stop all other versions, which stop accepting connections, complete their requests and exit."""
    others = [each for each in inspection.deployment(program, params["name"]).running if each != params["container"]]
    for each in others:
        stop_version(program, each, _options(params))
    return {"stopped": others}


def undo_retire(program: Program, params: StepParams) -> None:
    """Restart the previously running versions and wait until they are ready, before the new one is removed."""
    for name in params["stood"]:
        existing = inspection.container(program, name)
        if existing is not None and not existing.running:
            program.do("start", name)
            await_ready(program, name, params["url"], _options(params).start_timeout_s)


def tidy(program: Program, params: StepParams) -> Outputs:
    """Remove all versions except the current and the previous one."""
    versions = inspection.deployment(program, params["name"]).versions
    before = next((each.name for each in versions if each.name != params["container"]), None)
    outdated = [each.name for each in versions if each.name not in (params["container"], before)]
    remove_containers(program, outdated)
    remove_image(program, params["name"], [each.image for each in versions if each.name in outdated])
    return {"removed": outdated}


def stop(program: Program, params: StepParams) -> Outputs:
    """Make the listener container close the port, then stop the versions, which complete their requests."""
    current = inspection.deployment(program, params["name"])
    if current.listener is not None and current.listener.running:
        program.try_("kill", f"--signal={HAND_OVER.name}", current.listener.name)  # fails if it has just exited
    for each in current.versions:
        if each.running:
            stop_version(program, each.name, _options(params))
    return {}


def remove(program: Program, params: StepParams) -> Outputs:
    """Remove the containers, the volume, and the images that were built for the deployment."""
    current = inspection.deployment(program, params["name"])
    images = [each.image for each in (*current.versions, *([current.listener] if current.listener else []))]
    remove_containers(program, [each.name for each in current.versions])
    remove_listener(program, params["name"])
    remove_image(program, params["name"], images)
    return {}


def no_undo(_program: Program, _params: StepParams) -> None:
    """The undo of steps that have nothing to undo."""


Action = tuple[Callable[[Program, StepParams], Outputs], Callable[[Program, StepParams], None]]
ACTIONS: dict[str, Action] = {
    "image": (image, undo_image),
    "door": (listener, undo_listener),
    "start": (start, undo_start),
    "retire": (retire, undo_retire),
    "tidy": (tidy, no_undo),
    "stop": (stop, no_undo),
    "remove": (remove, no_undo),
}


# --- ownership -------------------------------------------------------------------------------------------------------


def _check_unclaimed(program: Program, params: StepParams) -> None:
    """Raise AlreadyDeployed if a creation would reuse the name of another plan's deployment."""
    if params["verb"] == "create":
        others = inspection.deployment(program, params["name"]).claims - {params["claim"]}
        if others:
            raise AlreadyDeployed(
                f"{params['name']!r} is already deployed with {program.name}",
                remedy=f"likewise update {params['name']} MODEL --to container, or choose another name",
            )


def _options(params: StepParams) -> ContainerTargetOptions:
    return coerce(ContainerTargetOptions, params["options"])
