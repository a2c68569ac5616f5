"""What the compiling of a bundle's engines can be told; CLI, Python API and docs are fed from the fields' metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from likewise.core.errors import WrongUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """Options of `bundle` beside the model itself; WrongUsage where one cannot mean anything."""

    calibration: Path | None = field(
        default=None,
        metadata={"help": "Texts such as the model will get (CSV, JSON lines or Parquet), to measure bf16's drift on."},
    )
    calibration_column: str = field(
        default="text", metadata={"help": "Their column; not needed where the file has only one."}
    )
    precision: str | None = field(
        default=None,
        metadata={"help": "bf16: fail where it cannot be offered; fp32: offer no bf16. By default bf16 where right."},
    )
    measure: bool = field(
        default=True, metadata={"help": "Measure the engines here, so that the fastest runs on such a CPU."}
    )

    def __post_init__(self) -> None:
        if self.precision not in (None, "bf16", "fp32"):
            raise WrongUsage(f"there is no precision {self.precision!r}", remedy="name bf16 or fp32")
