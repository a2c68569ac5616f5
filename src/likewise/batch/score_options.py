"""What a batch job can be told; CLI, Python API and docs are fed from the fields' metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from likewise.batch.formats import FORMATS
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option, parse_pairs

parse_conf = partial(parse_pairs, "--conf", "KEY=VALUE", "spark.executor.memory=4g")
parse_columns = partial(parse_pairs, "--column", "INPUT=MODEL", "review=text", last=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """Options of `score`; WrongUsage where one cannot mean anything. Each field's metadata has `help` and `metavar`."""

    runner: str = option("local", "What runs the job: local, spark, or one that a package adds.", "--runner NAME")
    column: Mapping[str, str] = option(
        dict, "Input column that feeds a column of the model; repeatable.", "--column INPUT=MODEL", parse=parse_columns
    )
    input_format: str | None = option(
        None, "Format of INPUT: csv, jsonl or parquet; from its suffix by default.", "--input-format FORMAT"
    )
    format: str | None = option(
        None, "Format of OUTPUT: csv, jsonl or parquet; the input's by default.", "--format FORMAT"
    )
    restart: bool = option(
        False, "Start anew: replace an OUTPUT that exists, drop what a stopped job has.", "--restart"
    )
    fail_on_quarantine: float | None = option(
        None, "Fail when more than this share of the rows was quarantined.", "--fail-on-quarantine PERCENT"
    )
    budget: int | None = option(None, "Tokens a forward pass; the engine's own by default.", "--budget TOKENS")
    window: int = option(4096, "Rows that are read and sorted by length together.", "--window ROWS")
    master: str | None = option(
        None,
        "Spark: address of the cluster: spark://…, sc://… for Spark Connect, local[4] for four cores; "
        "all cores of this machine by default.",
        "--master URL",
    )
    runner_conf: Mapping[str, str] = option(
        dict, "Passed to the runner, for Spark its configuration; repeatable.", "--conf KEY=VALUE", parse=parse_conf
    )

    def __post_init__(self) -> None:
        if len(set(self.column.values())) < len(self.column):
            raise WrongUsage("two columns of the input feed one of the model", remedy="--column once a model's column")
        for name, value in (("input_format", self.input_format), ("format", self.format)):
            if value is not None and value not in FORMATS:
                raise WrongUsage(f"{name} is {value!r}", remedy=f"one of: {', '.join(FORMATS)}")
        if self.fail_on_quarantine is not None and not 0 <= self.fail_on_quarantine <= 100:
            raise WrongUsage(f"fail_on_quarantine is {self.fail_on_quarantine}", remedy="a percentage from 0 to 100")
        for name, number in (("budget", self.budget), ("window", self.window)):
            if number is not None and number < 1:
                raise WrongUsage(f"{name} is {number}", remedy="a number of at least 1")
