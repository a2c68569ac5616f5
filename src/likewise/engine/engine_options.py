"""Options of engines: which one runs, and how they are compiled; CLI and docs use the fields' metadata."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from likewise.bundles.format import EngineEntry
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option
from likewise.core.spec import ModelSpec

PRECISIONS = {"bf16": ("bf16+fp32",), "fp32": ("fp32", "native")}
"""What may be asked, and the manifest's names for it. `native`: the model's own code, in whatever it computes."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Nothing: the fastest that was measured on this CPU. WrongUsage for a precision that there is not."""

    name: str | None = option(None, "Which of the bundle's engines; its best one by default.", "--engine NAME")
    precision: str | None = option(
        None,
        "bf16 (near things again in fp32) or fp32; by default what is faster here. Same labels.",
        "--precision NAME",
    )

    def __post_init__(self) -> None:
        if self.precision not in (None, *PRECISIONS):
            raise WrongUsage(
                f"there is no precision {self.precision!r}", remedy=f"name one of: {', '.join(PRECISIONS)}"
            )

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        """What `spec` says of the engine."""
        return cls(spec.engine, spec.precision)

    @property
    def pinned(self) -> bool:
        """Whether anything was asked for."""
        return self.name is not None or self.precision is not None

    def takes(self, entry: EngineEntry) -> bool:
        """Whether `entry` is what was asked for."""
        precisions = PRECISIONS.get(self.precision or "", (entry.precision,))
        return self.name in (None, entry.name) and entry.precision in precisions

    def __str__(self) -> str:
        return " in ".join(each for each in (self.name or "of any name", self.precision) if each)


ANY = EngineOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """Options of `bundle` beside the model itself; WrongUsage where one cannot mean anything."""

    calibration: Path | None = option(
        None,
        "Texts such as the model will get (CSV, JSON lines or Parquet), to measure bf16's drift on.",
        "--calibration FILE",
    )
    calibration_column: str = option(
        "text", "Their column; not needed where the file has only one.", "--calibration-column NAME"
    )
    precision: str | None = option(
        None,
        "bf16: fail where it cannot be offered; fp32: offer no bf16. By default bf16 where right.",
        "--precision NAME",
    )
    measure: bool = option(
        True, "Measure the engines here, so that the fastest runs on such a CPU.", "--measure/--no-measure"
    )

    def __post_init__(self) -> None:
        if self.precision not in (None, "bf16", "fp32"):
            raise WrongUsage(f"there is no precision {self.precision!r}", remedy="name bf16 or fp32")
