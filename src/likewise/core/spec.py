"""The description of a model that is passed from a command to a server, a job, an executor or a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A verified bundle, the engine to run it with, and whether its own Python code may run.

    digest: the model digest.  folder: the bundle's path on this machine.  source: the model's URI, without secrets.
    engine, precision: None for the fastest on the machine that runs it.  build: the build digest, empty in receipts of
    versions that had none.  allow_versions: whether it may run with another major version of its library.  python: that
    of an environment with the model's own versions, on this machine; empty for the Python that runs Likewise.
    """

    digest: str
    folder: Path = Path()
    source: str = ""
    engine: str | None = None
    precision: str | None = None
    trust: bool = False
    build: str = ""
    allow_versions: bool = False
    python: str = ""

    @property
    def key(self) -> str:
        """The digest that identifies the copy to install: of the build, if it is known."""
        return self.build or self.digest

    def as_dict(self) -> dict[str, Any]:
        """As a JSON object, for plans and receipts; `from_dict` reverses it."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Restore a spec from the output of `as_dict` or `portable`.

        Versions that did not compare a model's libraries allowed them all.
        """
        return cls(**{"allow_versions": True, **document, "folder": Path(document.get("folder", ""))})

    def portable(self) -> dict[str, Any]:
        """`as_dict` for another machine or folder: without folder, source and python, which are only valid here."""
        return {name: value for name, value in asdict(self).items() if name not in ("folder", "source", "python")}
