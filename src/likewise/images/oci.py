"""What an image is made of and called, in the words of the OCI specifications: descriptors, platforms, types, names.

A name is `NAME:TAG` here, `REGISTRY/NAME:TAG` or `REGISTRY/NAME@sha256:…` elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from likewise.core.digests import PREFIX
from likewise.core.errors import WrongUsage

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = (INDEX, DOCKER_LIST)
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
NAME = "org.opencontainers.image.ref.name"  # annotation of an entry in a layout's index
HUB = "docker.io"  # what a name without a registry means to everybody
HUB_API = "registry-1.docker.io"  # where that one answers
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Platform:
    """A Linux on one kind of CPU. machine: as Python and ELF call it; elf: its number in an ELF header."""

    architecture: str
    machine: str
    elf: int

    def __str__(self) -> str:
        return f"linux/{self.architecture}"

    @property
    def document(self) -> dict[str, str]:
        """As an image index has it."""
        return {"architecture": self.architecture, "os": "linux"}


PLATFORMS = {str(p): p for p in (Platform("amd64", "x86_64", 62), Platform("arm64", "aarch64", 183))}
"""Source of the numbers: the ELF specification's e_machine, EM_X86_64 and EM_AARCH64."""


def platform_named(text: str) -> Platform:
    """`linux/amd64`, `linux/arm64`, or the machine's own word for them; WrongUsage for another."""
    for name, platform in PLATFORMS.items():
        if text in (name, platform.architecture, platform.machine, f"{name}/v8"):
            return platform
    raise WrongUsage(f"there is no platform {text!r}", remedy=f"name one of: {', '.join(PLATFORMS)}")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob: what it is, its `sha256:…` and its bytes."""

    media_type: str
    digest: str
    size: int

    @property
    def document(self) -> dict[str, object]:
        """As manifests have it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Descriptor:
        """From a manifest's entry; KeyError, TypeError or ValueError where it is none."""
        digest = str(document["digest"])
        if not is_digest(digest):
            raise ValueError(f"not a sha256 digest: {digest!r}")
        return cls(str(document["mediaType"]), digest, int(document["size"]))


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's blob, and the digest of the tar in it."""

    blob: Descriptor
    diff_id: str

    @property
    def document(self) -> dict[str, object]:
        """To be remembered."""
        return {"blob": self.blob.document, "diff_id": self.diff_id}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Layer:
        """What `document` gave."""
        return cls(Descriptor.parse(document["blob"]), str(document["diff_id"]))


def is_digest(text: str) -> bool:
    """Whether it is `sha256:` and 64 hex digits, and so safe as a file's name."""
    digits = text.removeprefix(PREFIX)
    return text.startswith(PREFIX) and len(digits) == 64 and set(digits) <= set("0123456789abcdef")


# --- names -----------------------------------------------------------------------------------------------------------


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
