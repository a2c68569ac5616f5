"""What a batch job can be told; CLI, Python API and docs are fed from the fields' metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from likewise.batch.formats import FORMATS
from likewise.core.errors import WrongUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """Options of `score`; WrongUsage where one cannot mean anything. Each field's metadata has `help` and `metavar`."""

    runner: str = field(
        default="local",
        metadata={"help": "What runs the job: local, spark, or one that a package adds.", "metavar": "NAME"},
    )
    column: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "Input column that feeds a column of the model; repeatable.", "metavar": "INPUT=MODEL"},
    )
    input_format: str | None = field(
        default=None,
        metadata={"help": "Format of INPUT: csv, jsonl or parquet; from its suffix by default.", "metavar": "FORMAT"},
    )
    format: str | None = field(
        default=None,
        metadata={"help": "Format of OUTPUT: csv, jsonl or parquet; the input's by default.", "metavar": "FORMAT"},
    )
    restart: bool = field(
        default=False,
        metadata={"help": "Start anew: replace an OUTPUT that exists, drop what a stopped job has.", "metavar": None},
    )
    fail_on_quarantine: float | None = field(
        default=None,
        metadata={"help": "Fail when more than this share of the rows was quarantined.", "metavar": "PERCENT"},
    )
    budget: int | None = field(
        default=None, metadata={"help": "Tokens a forward pass; the engine's own by default.", "metavar": "TOKENS"}
    )
    window: int = field(
        default=4096,
        metadata={"help": "Rows that are read and sorted by length together.", "metavar": "ROWS"},
    )
    master: str | None = field(
        default=None,
        metadata={
            "help": "Spark: address of the cluster: spark://…, sc://… for Spark Connect, local[4] for four cores; "
            "all cores of this machine by default.",
            "metavar": "URL",
        },
    )
    runner_conf: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "Passed to the runner, for Spark its configuration; repeatable.", "metavar": "KEY=VALUE"},
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


def parse_conf(pairs: Iterable[str]) -> dict[str, str]:
    """`["spark.executor.memory=4g"]` as a mapping; WrongUsage for anything else."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not (key and sign) or key in mapping:
            raise WrongUsage(
                f"--conf {pair!r} is not KEY=VALUE, or names KEY twice", remedy="--conf spark.executor.memory=4g"
            )
        mapping[key] = value
    return mapping


def parse_columns(pairs: Iterable[str]) -> dict[str, str]:
    """`["review=text"]` as `{"review": "text"}`: the input's column first. WrongUsage for anything else."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        name, sign, model_name = pair.rpartition("=")
        if not (name and sign and model_name) or name in mapping:
            raise WrongUsage(
                f"--column {pair!r} is not INPUT=MODEL, or names INPUT twice", remedy="--column review=text"
            )
        mapping[name] = model_name
    return mapping
