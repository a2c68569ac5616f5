"""Engine options: which engine to use, and how to compile engines; the CLI and docs use the fields' metadata."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from likewise.bundles.format import EngineEntry
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option
from likewise.core.spec import ModelSpec

TOLERANT = "bf16"
"""The manifest's name for bf16 that changes numbers, within the tolerance that was stated when the bundle was built."""

AGREED = "%"
"""The end of the manifest's names for precisions that may change predictions: `99.9%` is the share that stays."""

PRECISIONS = {"bf16": ("bf16+fp32", TOLERANT), "fp32": ("fp32", "native")}
"""Accepted precisions, and the manifest's names for each. `native`: the precision of the model's own code."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Selects an engine; by default the fastest measured on this CPU. Raises WrongUsage for an unknown precision."""

    name: str | None = option(
        None, "The engine to use, as shown by `likewise inspect`; by default the bundle's best one.", "--engine NAME"
    )
    precision: str | None = option(
        None,
        "bf16 (with the labels of fp32, or within the tolerance that was stated) or fp32; by default the faster one.",
        "--precision NAME",
    )

    def __post_init__(self) -> None:
        if self.precision not in (None, *PRECISIONS):
            raise WrongUsage(f"unknown precision {self.precision!r}", remedy=f"use one of: {', '.join(PRECISIONS)}")

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        """The engine and precision that `spec` selects."""
        return cls(spec.engine, spec.precision)

    @property
    def pinned(self) -> bool:
        """Whether an engine or a precision is selected."""
        return self.name is not None or self.precision is not None

    def takes(self, entry: EngineEntry) -> bool:
        """Whether `entry` matches the selection."""
        precisions = PRECISIONS.get(self.precision or "", (entry.precision,))
        return self.name in (None, entry.name) and entry.precision in precisions

    def __str__(self) -> str:
        return " in ".join(each for each in (self.name or "with any name", self.precision) if each)


ANY = EngineOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """Options of `bundle` for compiling engines; raises WrongUsage for an unknown precision."""

    calibration: Path | None = option(
        None,
        "Typical input texts (CSV, JSON Lines or Parquet) on which to measure the accuracy of bf16.",
        "--calibration FILE",
    )
    calibration_column: str = option(
        "text", "The column with the texts; not needed if the file has only one.", "--calibration-column NAME"
    )
    precision: str | None = option(
        None,
        "bf16: fail if bf16 is not accurate enough here; fp32: omit bf16. By default, include bf16 if accurate enough.",
        "--precision NAME",
    )
    agreement: float | None = option(
        None,
        "Also offer a faster engine that may change predictions, if the texts of --calibration prove that at least "
        "this percentage stays the same, for example 99.9.",
        "--agreement PERCENT",
    )
    accelerate: bool = option(
        False,
        "Compile what the model's own code loads with transformers or MLflow's PyTorch flavor (needs --trust).",
        "--accelerate",
    )
    tolerance: float | None = option(
        None,
        "How much bf16 may change numbers: scores of a transformers model (default 0.02); those of an ONNX model for "
        "its example, as a fraction of the largest (such as 0.02; by default it does not run in bf16).",
        "--tolerance NUMBER",
        min=0,
    )
    measure: bool = option(
        True, "Measure the engines' speed, so that the fastest is used on this kind of CPU.", "--measure/--no-measure"
    )

    def __post_init__(self) -> None:
        if self.precision not in (None, "bf16", "fp32"):
            raise WrongUsage(f"unknown precision {self.precision!r}", remedy="use bf16 or fp32")
        if self.agreement is not None and not 50 <= self.agreement < 100:
            raise WrongUsage(
                f"--agreement is {self.agreement:g}", remedy="use a percentage below 100: --agreement 99.9"
            )
        if self.agreement is not None and self.calibration is None:
            raise WrongUsage(
                "--agreement needs texts that prove it", remedy="add --calibration FILE, with typical input texts"
            )
