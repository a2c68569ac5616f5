"""Options of a comparison, shared by the command line and the Python API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from likewise.batch.header import check_choice
from likewise.batch.score_options import parse_columns
from likewise.core.option_fields import option


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Options of `verify`. Each field's `metadata["help"]` is its help text."""

    golden: str | None = option(
        None,
        "Rows to compare: CSV, JSON Lines or Parquet with the model's columns; default: the model's input example.",
        "--golden FILE",
    )
    column: Mapping[str, str] = option(
        dict,
        "Use column INPUT of the golden file as the model's column MODEL. Repeatable.",
        "--column INPUT=MODEL",
        parse=parse_columns,
    )
    header: str | None = option(
        None,
        "Whether the first line of a golden CSV file contains the names of its columns, as for `likewise score`.",
        "--header present|absent",
    )
    tolerance: float = option(
        0.02,
        "Largest difference between two numbers that counts as close; relative for numbers above 1.",
        "--tolerance NUMBER",
        min=0.0,
    )
    token_file: Path | None = option(
        None, "File whose first token is sent to URLs as bearer token.", "--token-file FILE"
    )
    timeout_s: float = option(120.0, "Timeout of each request to a URL.", "--timeout SECONDS", min=0.001)

    def __post_init__(self) -> None:
        check_choice(self.header)
