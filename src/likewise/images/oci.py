"""OCI building blocks: media types, descriptors, platforms and image names, as the OCI specifications define them.

An image in the local store is called `NAME:TAG`; one in a registry `REGISTRY/NAME:TAG` or `REGISTRY/NAME@sha256:…`.
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
HUB = "docker.io"  # the registry of a name that has none
HUB_API = "registry-1.docker.io"  # the host of Docker Hub's API
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Platform:
    """Linux on one CPU architecture. machine: its name in `platform.machine()`; elf: its `e_machine` in ELF headers."""

    architecture: str
    machine: str
    elf: int

    def __str__(self) -> str:
        return f"linux/{self.architecture}"

    @property
    def document(self) -> dict[str, str]:
        """The `platform` object of an entry in an image index."""
        return {"architecture": self.architecture, "os": "linux"}


PLATFORMS = {str(p): p for p in (Platform("amd64", "x86_64", 62), Platform("arm64", "aarch64", 183))}
"""Source of the numbers: the ELF specification's e_machine, EM_X86_64 and EM_AARCH64."""


def platform_named(text: str) -> Platform:
    """Parse `linux/amd64`, `amd64` or `x86_64` (and the same for arm64); raises WrongUsage for any other platform."""
    for name, platform in PLATFORMS.items():
        if text in (name, platform.architecture, platform.machine, f"{name}/v8"):
            return platform
    raise WrongUsage(f"unknown platform {text!r}", remedy=f"use one of: {', '.join(PLATFORMS)}")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Identifies a blob by media type, digest (`sha256:…`) and size in bytes."""

    media_type: str
    digest: str
    size: int

    @property
    def document(self) -> dict[str, object]:
        """The descriptor as it appears in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Descriptor:
        """Parse a manifest's entry; raises KeyError, TypeError or ValueError if it is not a descriptor."""
        digest = str(document["digest"])
        if not is_digest(digest):
            raise ValueError(f"not a sha256 digest: {digest!r}")
        return cls(str(document["mediaType"]), digest, int(document["size"]))


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's compressed blob, and the digest of the tar inside it (`diff_id`)."""

    blob: Descriptor
    diff_id: str

    @property
    def document(self) -> dict[str, object]:
        """The layer as JSON, for the store's cache."""
        return {"blob": self.blob.document, "diff_id": self.diff_id}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Layer:
        """The inverse of `document`."""
        return cls(Descriptor.parse(document["blob"]), str(document["diff_id"]))


def is_digest(text: str) -> bool:
    """Whether `text` is `sha256:` plus 64 lowercase hex digits, and therefore safe as a file name."""
    digits = text.removeprefix(PREFIX)
    return text.startswith(PREFIX) and len(digits) == 64 and set(digits) <= set("0123456789abcdef")


# --- names -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageName:
    """A parsed image name; registry is empty if the name has none. Source: the OCI distribution specification."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        name = f"{self.registry}/{self.repository}" if self.registry else self.repository
        return name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def reference(self) -> str:
        """The reference in a registry's API: the digest if there is one, else the tag."""
        return self.digest or self.tag or "latest"

    @property
    def on_hub(self) -> ImageName:
        """The same name with the registry filled in: a name without one refers to Docker Hub."""
        if self.registry and self.registry != HUB:
            return self
        path = self.repository if "/" in self.repository else f"library/{self.repository}"
        return replace(self, registry=HUB, repository=path)


def parse_name(text: str) -> ImageName:
    """Parse an image name; raises WrongUsage if it is invalid."""
    rest, _, digest = text.partition("@")
    if "@" in text and not is_digest(digest):  # what precedes it may be a password
        raise WrongUsage(
            "an image name contains an @ that no digest follows",
            remedy="use NAME:TAG or NAME@sha256:…; to give a registry a password, run docker login REGISTRY",
        )
    head, slash, tail = rest.partition("/")
    registry = head if slash and ("." in head or ":" in head or head == "localhost") else ""
    path, _, tag = (tail if registry else rest).partition(":")
    invalid = not _REPOSITORY.fullmatch(path) or (":" in rest and not registry and not tag)
    invalid = invalid or bool(tag and not _TAG.fullmatch(tag))
    if invalid or not re.fullmatch(r"[A-Za-z0-9.:\[\]-]*", registry):
        raise WrongUsage(f"{text!r} is not a valid image name", remedy="use NAME:TAG, in lower case")
    return ImageName(registry, path, tag, digest)


def local_name(text: str) -> ImageName:
    """Parse the name of an image in the local store; the default tag is `latest`. Raises WrongUsage for a digest."""
    name = parse_name(text)
    if name.digest:
        raise WrongUsage(f"{text!r} contains a digest; local images are named by tag", remedy="use NAME:TAG")
    return replace(name, tag=name.tag or "latest")
