"""The one place that knows how an image is made and pushed: the room `images` does both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from likewise.bundles.open import open_bundle
from likewise.core.spec import ModelSpec
from likewise.images.base import DEFAULT
from likewise.images.build import ImageOptions, build_image
from likewise.images.oci import PLATFORMS
from likewise.images.push import push_image

Credentials = Callable[[str], tuple[str, str] | None]


@dataclass(frozen=True, slots=True)
class Making:
    """What an image is made of. platform: linux/amd64 or linux/arm64. base: None for the usual one."""

    model: ModelSpec
    platform: str
    base: str | None
    tell: Callable[[str], None]


def make_and_push(made: Making, address: str, credentials: Credentials) -> str:
    """Assemble the image and push it to `address`, REGISTRY/NAME:TAG; its digest; raises what `images` does."""
    model, tag = made.model, address.rpartition(":")[2]
    options = ImageOptions(base=made.base or DEFAULT, platforms=(PLATFORMS[made.platform],))
    built = build_image(open_bundle(model.folder), f"likewise:{tag}", model, options, report=made.tell)
    return push_image(built.name, address, credentials=credentials, report=made.tell).digest
