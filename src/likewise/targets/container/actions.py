"""What each step does, having looked first, and how it is taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from likewise.core.errors import AlreadyDeployed
from likewise.core.option_fields import coerce
from likewise.core.spec import ModelSpec
from likewise.targets.base import Outputs
from likewise.targets.container import inspection
from likewise.targets.container.container_options import ContainerTargetOptions
from likewise.targets.container.image import make_image, remove_image
from likewise.targets.container.inspection import version_name
from likewise.targets.container.listener import make_door, open_door, remove_door
from likewise.targets.container.program import WORK_S, Program
from likewise.targets.container.running import await_ready, remove_containers, stop_version, version_command
from likewise.targets.listener import HAND_OVER

StepParams = Mapping[str, Any]


def image(program: Program, params: StepParams) -> Outputs:
    """See that the engine has the image."""
    _unclaimed(program, params)
    return make_image(program, params["name"], ModelSpec.from_dict(params["model"]), _options(params))


def undo_image(program: Program, params: StepParams) -> None:
    """Remove it where it was built and nothing runs it."""
    remove_image(program, params["name"])


def door(program: Program, params: StepParams) -> Outputs:
    """See that something holds the port."""
    _unclaimed(program, params)
    name, options = params["name"], _options(params)
    there = inspection.standing(program, name).door
    if there is None:
        make_door(program, params, options)
    elif not there.running:
        program.do("start", there.name)
    held = open_door(program, name)
    return {"url": held.labels[inspection.URL], "door": held.name}


def undo_door(program: Program, params: StepParams) -> None:
    """Remove it where no version is left."""
    standing = inspection.standing(program, params["name"])
    if not standing.versions and standing.claims <= {params["claim"]}:
        remove_door(program, params["name"])


def start(program: Program, params: StepParams) -> Outputs:
    """See that the version answers: it accepts beside the one before."""
    _unclaimed(program, params)
    options, name = _options(params), version_name(params["name"], params["claim"], params["image"])
    there = inspection.container(program, name)
    if there is None:
        program.do(*version_command(name, params, options), patience_s=WORK_S)
    elif not there.running:
        program.do("start", name)
    await_ready(program, name, params["url"], options.start_timeout_s)
    return {"container": name, "url": params["url"]}


def undo_start(program: Program, params: StepParams) -> None:
    """Remove the version, unless it was there before."""
    name = version_name(params["name"], params["claim"], params["image"])
    if name not in params["stood"] and inspection.container(program, name) is not None:
        stop_version(program, name, _options(params))
        remove_containers(program, [name])


def retire(program: Program, params: StepParams) -> Outputs:
    """The others leave the port, answer who is connected, and end."""
    others = [each for each in inspection.standing(program, params["name"]).running if each != params["container"]]
    for each in others:
        stop_version(program, each, _options(params))
    return {"stopped": others}


def undo_retire(program: Program, params: StepParams) -> None:
    """Those that ran before run again, and answer, before the new one goes."""
    for name in params["stood"]:
        there = inspection.container(program, name)
        if there is not None and not there.running:
            program.do("start", name)
            await_ready(program, name, params["url"], _options(params).start_timeout_s)


def tidy(program: Program, params: StepParams) -> Outputs:
    """Only the version that answers and the one before it are kept."""
    versions = inspection.standing(program, params["name"]).versions
    before = next((each.name for each in versions if each.name != params["container"]), None)
    gone = [each.name for each in versions if each.name not in (params["container"], before)]
    remove_containers(program, gone)
    remove_image(program, params["name"], [each.image for each in versions if each.name in gone])
    return {"removed": gone}


def stop(program: Program, params: StepParams) -> Outputs:
    """The door lets go of the port, the versions answer what they have, and end."""
    standing = inspection.standing(program, params["name"])
    if standing.door is not None and standing.door.running:  # one that has ended meanwhile needs no signal
        program.try_("kill", f"--signal={HAND_OVER.name}", standing.door.name)
    for each in standing.versions:
        if each.running:
            stop_version(program, each.name, _options(params))
    return {}


def remove(program: Program, params: StepParams) -> Outputs:
    """Containers, volume, and the images that were built for them."""
    standing = inspection.standing(program, params["name"])
    held = [each.image for each in (*standing.versions, *([standing.door] if standing.door else []))]
    remove_containers(program, [each.name for each in standing.versions])
    remove_door(program, params["name"])
    remove_image(program, params["name"], held)
    return {}


def nothing(_program: Program, _params: StepParams) -> None:
    """There is nothing to take back."""


Action = tuple[Callable[[Program, StepParams], Outputs], Callable[[Program, StepParams], None]]
ACTIONS: dict[str, Action] = {
    "image": (image, undo_image),
    "door": (door, undo_door),
    "start": (start, undo_start),
    "retire": (retire, undo_retire),
    "tidy": (tidy, nothing),
    "stop": (stop, nothing),
    "remove": (remove, nothing),
}


# --- whose it is -----------------------------------------------------------------------------------------------------


def _unclaimed(program: Program, params: StepParams) -> None:
    """A new deployment takes no name that another one has."""
    if params["verb"] == "create":
        others = inspection.standing(program, params["name"]).claims - {params["claim"]}
        if others:
            raise AlreadyDeployed(
                f"{params['name']!r} is deployed there already, as {program.name} tells",
                remedy=f"likewise update {params['name']} MODEL --to container, or take another name",
            )


def _options(params: StepParams) -> ContainerTargetOptions:
    return coerce(ContainerTargetOptions, params["options"])
