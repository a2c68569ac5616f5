"""Options of a comparison, shared by the command line and the Python API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from likewise.batch.header import check_choice
from likewise.batch.score_options import parse_columns
from likewise.core.bounds import CONFIDENCE, rows_for
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option, parse_pairs


def parse_tolerances(given: Sequence[str]) -> dict[str, float]:
    """The tolerances of `--tolerance-of COLUMN=NUMBER`; WrongUsage for one that is not a number."""
    pairs = parse_pairs("--tolerance-of", "COLUMN=NUMBER", "score=0.001", list(given), last=True)
    try:
        return {name: float(value) for name, value in pairs.items()}
    except ValueError as error:
        raise WrongUsage(f"--tolerance-of: {error}", remedy="write it as --tolerance-of score=0.001") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Options of `verify`; WrongUsage for an invalid value. Each field's metadata has its `help` and `flag`."""

    golden: str | None = option(
        None,
        "Rows to compare: CSV, JSON Lines or Parquet with the model's columns; default: the input of a scored file "
        "among the backends, else the model's input example. May have a column `expected` with the right predictions, "
        "and `params`.",
        "--golden FILE",
    )
    sample: int | None = option(None, "Compare this many rows of the file, chosen at random.", "--sample ROWS", min=1)
    bound: float | None = option(
        None,
        "Compare as many rows as it takes to prove, if none differs, that at most this percentage of all rows do.",
        "--bound PERCENT",
    )
    confidence: float = option(
        100 * CONFIDENCE, "Confidence of what the sample proves, in percent.", "--confidence PERCENT"
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
    expected: str | None = option(
        None,
        "Column of the golden file with the right predictions; default: `expected`, if the model has other columns.",
        "--expected COLUMN",
    )
    params: str | None = option(
        None,
        "Column of the golden file with params as a JSON object; default: `params`, if the model has other columns.",
        "--params COLUMN",
    )
    tolerance: float = option(
        0.02,
        "Largest difference between two numbers that counts as close; relative for numbers above 1.",
        "--tolerance NUMBER",
        min=0.0,
    )
    tolerance_of: Mapping[str, float] = option(
        dict,
        "Another tolerance for a column of the predictions, or a part of it such as response.score. Repeatable.",
        "--tolerance-of COLUMN=NUMBER",
        parse=parse_tolerances,
    )
    allow: float = option(0.0, "Accept up to this percentage of differing rows.", "--allow PERCENT")
    max_p99: float | None = option(
        None, "Fail a backend that answers 1 % of the requests later than this.", "--max-p99 MS", min=0.0
    )
    seed: int | None = option(
        None, "Repeat the sample, the order and the batch sizes of an earlier comparison.", "--seed NUMBER"
    )
    token_file: Path | None = option(
        None, "File whose first token is sent to URLs as bearer token.", "--token-file FILE"
    )
    timeout_s: float = option(120.0, "Timeout of each request to a URL.", "--timeout SECONDS", min=0.001)

    def __post_init__(self) -> None:
        check_choice(self.header)
        if self.golden == "":
            raise WrongUsage("the name of the golden file is empty", remedy="use --golden FILE, or omit it")
        for name, value in (("confidence", self.confidence), ("bound", self.bound), ("allow", self.allow or None)):
            if value is not None and not 0 < value < 100:
                flag = f"--{name}"
                raise WrongUsage(f"{flag} is {value:g}", remedy=f"use a percentage between 0 and 100: {flag} 0.1")
        if self.sample is not None and self.bound is not None:
            raise WrongUsage("--sample and --bound both give the number of rows", remedy="use one of them")

    @property
    def wanted(self) -> int | None:
        """The number of rows to choose at random; None for all."""
        return self.sample if self.bound is None else rows_for(self.bound / 100, self.confidence / 100)
