"""Options of a batch job. The CLI, the Python API and the docs use the fields' metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from likewise.batch.formats import FORMATS
from likewise.batch.header import check_choice
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option, parse_pairs

parse_conf = partial(parse_pairs, "--conf", "KEY=VALUE", "spark.executor.memory=4g")
parse_columns = partial(parse_pairs, "--column", "INPUT=MODEL", "review=text", last=True)


def parse_params(text: str) -> dict[str, object]:
    """The JSON object `text`.  Raises WrongUsage."""
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise WrongUsage(f"--params {text!r} is not a JSON object", remedy="""for example: --params '{"top_k": 3}'""")
    return parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """Options of `score`; WrongUsage for an invalid value. Each field's metadata has its `help` and `flag`."""

    runner: str = option("local", "What runs the job: local, spark, ray, or another package's runner.", "--runner NAME")
    column: Mapping[str, str] = option(
        dict, "Use column INPUT as the model's column MODEL. Repeatable.", "--column INPUT=MODEL", parse=parse_columns
    )
    params: Mapping[str, object] | None = option(
        None, "Params of the model, for all rows, as a JSON object.", "--params JSON", parse=parse_params
    )
    input_format: str | None = option(
        None, "Format of INPUT: csv, jsonl or parquet; by default from its suffix.", "--input-format FORMAT"
    )
    header: str | None = option(
        None,
        "Whether the first line of a CSV file contains the names of its columns: present (the default) or absent; then "
        "they are the model's columns in their order or, with --column or if the model names none, 0, 1, …",
        "--header present|absent",
    )
    format: str | None = option(
        None,
        "Format of OUTPUT: csv, jsonl or parquet; by default from its suffix, else the format of INPUT.",
        "--format FORMAT",
    )
    restart: bool = option(
        False,
        "Start from the beginning: replace an existing OUTPUT and the results of an interrupted job.",
        "--restart",
    )
    fail_on_quarantine: float | None = option(
        None,
        "Fail if more than this percentage of the rows cannot be scored (is quarantined).",
        "--fail-on-quarantine PERCENT",
    )
    allow_empty: bool = option(
        False, "Accept an output without any prediction, for example of an INPUT without rows.", "--allow-empty"
    )
    budget: int | None = option(
        None, "Largest number of tokens per forward pass; by default the engine decides.", "--budget TOKENS"
    )
    window: int = option(4096, "Rows read, sorted by length and scored together; fewer above 8 MB.", "--window ROWS")
    master: str | None = option(
        None,
        "The cluster. Spark: spark://…, sc://… for Spark Connect, local[4] for four cores; by default all cores of "
        "this machine. Ray: HOST:6379, ray://HOST:10001; by default RAY_ADDRESS, else a cluster on this machine, "
        "which is started if there is none.",
        "--master URL",
    )
    runner_conf: Mapping[str, str] = option(
        dict,
        "Configuration property for the runner, such as spark.executor.memory=4g; for Ray num_cpus, num_gpus and "
        "memory of each worker, and workers for the largest number of them. Repeatable.",
        "--conf KEY=VALUE",
        parse=parse_conf,
    )

    def __post_init__(self) -> None:
        if len(set(self.column.values())) < len(self.column):
            raise WrongUsage(
                "two input columns are mapped to the same model column", remedy="use --column once per model column"
            )
        for name, value in (("input_format", self.input_format), ("format", self.format)):
            if value is not None and value not in FORMATS:
                raise WrongUsage(f"{name} is {value!r}", remedy=f"use one of: {', '.join(FORMATS)}")
        check_choice(self.header)
        if self.fail_on_quarantine is not None and not 0 <= self.fail_on_quarantine <= 100:
            raise WrongUsage(f"fail_on_quarantine is {self.fail_on_quarantine}", remedy="use a percentage, 0 to 100")
        for name, number in (("budget", self.budget), ("window", self.window)):
            if number is not None and number < 1:
                raise WrongUsage(f"{name} is {number}", remedy="use a number of at least 1")
