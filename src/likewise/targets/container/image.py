"""The image of a deployment: an existing one, or one that is built for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from likewise.bundles.open import open_exactly
from likewise.core.errors import DeployFailed, InputNotFound, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.images.build import ImageOptions, build_image
from likewise.images.containers import load
from likewise.images.store import Store
from likewise.targets.base import Outputs
from likewise.targets.container.container_options import ContainerTargetOptions
from likewise.targets.container.inspection import BUILD, BUILT, BUNDLE, NAME, RETAINED
from likewise.targets.container.program import WORK_S, Program
from likewise.telemetry.switch import exporters


def ensure_image(program: Program, name: str, model: ModelSpec, options: ContainerTargetOptions) -> Outputs:
    """Find or build the image; the output `image` is its id at the engine.

    Raises what `build_image` and `load` do, DeployFailed, and WrongUsage.
    """
    if options.image is not None:
        return {"image": _existing(program, options.image, model)}
    image_options = ImageOptions(
        base=options.base,
        platforms=(program.platform(),),
        wheels=() if options.wheels is None else (options.wheels,),
        lock=options.lock,
        telemetry=bool(exporters(options.env)),
    )
    store = Store()
    bundle = open_exactly(model)
    built = build_image(bundle, _tag(name), model, image_options, store=store, report=lambda _: None)
    return {"image": _id(_inspected(program, load(store, built.name, program.engine)))}


def remove_image(program: Program, name: str, also: Sequence[str] = ()) -> None:
    """Remove the images that were built for the deployment `name` and that no container uses.

    also: ids of further images, whose tag may have moved to a newer image.  Images that others have tagged are kept.
    """
    for image in dict.fromkeys([_tag(name), f"localhost/{_tag(name)}", *also]):
        for description in program.inspected("image", [image]):
            _remove_one(program, name, description)


def _remove_one(program: Program, name: str, description: dict[str, Any]) -> None:
    image, all_tags = _id(description), [str(tag) for tag in description.get("RepoTags") or ()]
    tags = [tag for tag in all_tags if not tag.removeprefix("localhost/").startswith(f"{RETAINED}:")]
    own_tags = [tag for tag in tags if tag.removeprefix("localhost/") == _tag(name)]
    if len(own_tags) < len(tags):  # keep an image that others have tagged
        _untag(program, own_tags)
    elif _is_built(description) and not _users(program, image):
        program.do("image", "rm", "--force", image, timeout_s=WORK_S)
    elif own_tags and not _users(program, image, "--filter", f"label={NAME}={name}"):  # other deployments use it
        program.do("image", "tag", image, f"{RETAINED}:{image[:12]}")
        _untag(program, own_tags)


def _untag(program: Program, tags: Sequence[str]) -> None:
    """Remove tags from an image that has others."""
    for tag in tags:
        program.do("image", "rm", tag, timeout_s=WORK_S)


def _existing(program: Program, image: str, model: ModelSpec) -> str:
    """The id of an image at the engine, in Likewise's image store, or in a registry from which the engine pulls it."""
    if not program.inspected("image", [image]):
        try:
            image = load(Store(), image, program.engine)
        except InputNotFound:
            program.do("pull", "--quiet", image, timeout_s=WORK_S)
    description = _inspected(program, image)
    labels = (description.get("Config") or {}).get("Labels") or {}
    label, expected = (BUILD, model.build) if BUILD in labels else (BUNDLE, model.digest)
    if labels.get(label) != expected:
        content = f"the bundle {labels[label]}" if label in labels else "no bundle"
        raise WrongUsage(
            f"the image {image} contains {content}, but the model is {expected}",
            remedy="deploy the model from which it was built, or leave out the option image to build a new one",
        )
    return _id(description)


def _inspected(program: Program, image: str) -> dict[str, Any]:
    descriptions = program.inspected("image", [image])
    if not descriptions:
        raise DeployFailed(f"{program.name} has no image {image}", remedy="run the same command again")
    return descriptions[0]


def _id(description: dict[str, Any]) -> str:
    return str(description["Id"]).removeprefix("sha256:")


def _is_built(description: dict[str, Any]) -> bool:
    """Whether Likewise built it; other images may be untagged as well."""
    return BUNDLE in ((description.get("Config") or {}).get("Labels") or {})


def _users(program: Program, image: str, *more: str) -> list[str]:
    return program.listed("container", "ls", "--all", "--quiet", "--filter", f"ancestor={image}", *more)


def _tag(name: str) -> str:
    return f"{BUILT}:{name}"
