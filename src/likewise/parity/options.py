"""What a comparison may be told; the command line and Python share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Each field's `metadata["help"]` is its help text."""

    golden: str | None = field(
        default=None,
        metadata={"help": "CSV, JSON lines or Parquet with the model's columns; else the model's own example."},
    )
    column: Mapping[str, str] = field(
        default_factory=dict, metadata={"help": "A column of the golden set for one of the model's. Repeatable."}
    )
    tolerance: float = field(
        default=0.02, metadata={"help": "Numbers may differ by so much, and relatively so much above 1."}
    )
    token_file: Path | None = field(default=None, metadata={"help": "Its first token goes to URLs."})
    timeout_s: float = field(default=120.0, metadata={"help": "Seconds for each request to a URL."})
