"""What an image is made of, in the words of the OCI image specification: descriptors, platforms, media types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
