"""One model as it is passed on: from a command to a server, a job, an executor or a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A verified bundle, which of its engines is to run it, and whether its own Python code may run.

    digest: the bundle's. folder: where it lies on this machine. source: the model's URI, as the user named it.
    engine, precision: None for the fastest where it runs.
    """

    digest: str
    folder: Path = Path()
    source: str = ""
    engine: str | None = None
    precision: str | None = None
    trust: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it, for plans and receipts; `from_dict` takes it back."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """What `as_dict` or `portable` gave."""
        return cls(**{**document, "folder": Path(document.get("folder", ""))})

    def portable(self) -> dict[str, Any]:
        """`as_dict` for another machine or folder, without what holds only here: folder and source."""
        return {name: value for name, value in asdict(self).items() if name not in ("folder", "source")}
