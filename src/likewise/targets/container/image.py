"""The image of a deployment: one that is there already, or one that is built for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from likewise.bundles.open import open_bundle
from likewise.core.errors import DeployFailed, InputNotFound, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.images.build import ImageOptions, build_image
from likewise.images.containers import load
from likewise.images.store import Store
from likewise.targets.base import Outputs
from likewise.targets.container.container_options import ContainerTargetOptions
from likewise.targets.container.inspection import BUILT, BUNDLE, HELD, NAME
from likewise.targets.container.program import WORK_S, Program


def make_image(program: Program, name: str, model: ModelSpec, options: ContainerTargetOptions) -> Outputs:
    """`image`: its id at the engine; raises what `build_image` and `load` do, and DeployFailed, WrongUsage."""
    if options.image is not None:
        return {"image": _taken(program, options.image, model)}
    made = ImageOptions(
        base=options.base,
        platforms=(program.platform(),),
        wheels=() if options.wheels is None else (options.wheels,),
        lock=options.lock,
    )
    store = Store()
    built = build_image(open_bundle(model.folder), _called(name), model, made, store=store, report=lambda _: None)
    return {"image": _id(_seen(program, load(store, built.name, program.engine)))}


def remove_image(program: Program, name: str, also: Sequence[str] = ()) -> None:
    """Those built for the deployment `name` that no container stands on; also: ids of ones that may have lost the name.

    What carries a name that somebody else gave it stays.
    """
    for image in dict.fromkeys([_called(name), f"localhost/{_called(name)}", *also]):
        for said in program.inspected("image", [image]):
            _remove_one(program, name, said)


def _remove_one(program: Program, name: str, said: dict[str, Any]) -> None:
    image, every = _id(said), [str(tag) for tag in said.get("RepoTags") or ()]
    tags = [tag for tag in every if not tag.removeprefix("localhost/").startswith(f"{HELD}:")]
    ours = [tag for tag in tags if tag.removeprefix("localhost/") == _called(name)]
    if len(ours) < len(tags):  # somebody else's name keeps the image
        _untag(program, ours)
    elif _is_built(said) and not _users(program, image):
        program.do("image", "rm", "--force", image, patience_s=WORK_S)
    elif ours and not _users(program, image, "--filter", f"label={NAME}={name}"):  # another deployment's containers do
        program.do("image", "tag", image, f"{HELD}:{image[:12]}")
        _untag(program, ours)


def _untag(program: Program, tags: Sequence[str]) -> None:
    """Take names from an image that has others."""
    for tag in tags:
        program.do("image", "rm", tag, patience_s=WORK_S)


def _taken(program: Program, image: str, model: ModelSpec) -> str:
    """An image by its name: at the engine, in our own store, or in a registry that the engine asks."""
    if not program.inspected("image", [image]):
        try:
            image = load(Store(), image, program.engine)
        except InputNotFound:
            program.do("pull", "--quiet", image, patience_s=WORK_S)
    said = _seen(program, image)
    holds = ((said.get("Config") or {}).get("Labels") or {}).get(BUNDLE)
    if holds != model.digest:
        what = f"the bundle {holds}" if holds else "no bundle"
        raise WrongUsage(
            f"the image {image} holds {what}, and the model is {model.digest}",
            remedy="name the model that it was built of, or leave image out: one is built",
        )
    return _id(said)


def _seen(program: Program, image: str) -> dict[str, Any]:
    said = program.inspected("image", [image])
    if not said:
        raise DeployFailed(f"{program.name} has no image {image}", remedy="run the same command again")
    return said[0]


def _id(said: dict[str, Any]) -> str:
    return str(said["Id"]).removeprefix("sha256:")


def _is_built(said: dict[str, Any]) -> bool:
    """Whether Likewise made it, and not somebody else's image that has no name any more."""
    return BUNDLE in ((said.get("Config") or {}).get("Labels") or {})


def _users(program: Program, image: str, *more: str) -> list[str]:
    return program.listed("container", "ls", "--all", "--quiet", "--filter", f"ancestor={image}", *more)


def _called(name: str) -> str:
    return f"{BUILT}:{name}"
