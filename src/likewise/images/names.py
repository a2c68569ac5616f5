"""What images are called: `NAME:TAG` here, `REGISTRY/NAME:TAG` or `REGISTRY/NAME@sha256:…` elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from likewise.core.errors import WrongUsage
from likewise.images.oci import is_digest

HUB = "docker.io"  # what a name without a registry means to everybody
HUB_API = "registry-1.docker.io"  # where that one answers
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class ImageName:
    """A parsed name; registry is empty for one that has none. Source: the OCI distribution specification."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        name = f"{self.registry}/{self.repository}" if self.registry else self.repository
        return name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def at(self) -> str:
        """What a registry's API calls the reference: the digest, or the tag."""
        return self.digest or self.tag or "latest"

    @property
    def on_hub(self) -> ImageName:
        """The same, with the registry that a name without one means."""
        if self.registry and self.registry != HUB:
            return self
        path = self.repository if "/" in self.repository else f"library/{self.repository}"
        return replace(self, registry=HUB, repository=path)


def parse_name(text: str) -> ImageName:
    """The name; WrongUsage where it is none."""
    rest, _, digest = text.partition("@")
    head, slash, tail = rest.partition("/")
    registry = head if slash and ("." in head or ":" in head or head == "localhost") else ""
    path, _, tag = (tail if registry else rest).partition(":")
    wrong = not _REPOSITORY.fullmatch(path) or (":" in rest and not registry and not tag)
    wrong = wrong or bool(tag and not _TAG.fullmatch(tag)) or bool("@" in text and not is_digest(digest))
    if wrong or not re.fullmatch(r"[A-Za-z0-9.:\[\]-]*", registry):
        raise WrongUsage(f"{text!r} is no name of an image", remedy="write NAME:TAG, in small letters")
    return ImageName(registry, path, tag, digest)


def local_name(text: str) -> ImageName:
    """A name for the images that lie here, `latest` where it has no tag; WrongUsage where it names a digest."""
    name = parse_name(text)
    if name.digest:
        raise WrongUsage(f"{text!r} names a digest, and an image here has a tag", remedy="write NAME:TAG")
    return replace(name, tag=name.tag or "latest")
