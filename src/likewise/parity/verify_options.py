"""What a comparison may be told; the command line and Python share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from likewise.batch.score_options import parse_columns
from likewise.core.option_fields import option


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Each field's `metadata["help"]` is its help text."""

    golden: str | None = option(
        None, "CSV, JSON lines or Parquet with the model's columns; else the model's own example.", "--golden FILE"
    )
    column: Mapping[str, str] = option(
        dict,
        "A column of the golden set for one of the model's. Repeatable.",
        "--column INPUT=MODEL",
        parse=parse_columns,
    )
    tolerance: float = option(
        0.02, "Numbers may differ by so much, and relatively so much above 1.", "--tolerance NUMBER", min=0.0
    )
    token_file: Path | None = option(None, "Its first token goes to URLs.", "--token-file FILE")
    timeout_s: float = option(120.0, "Seconds for each request to a URL.", "--timeout SECONDS", min=0.001)
