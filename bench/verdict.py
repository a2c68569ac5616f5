"""Results of scenarios compared with thresholds; missed thresholds are shown."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table

from bench.generator import Outcome

COMPARED = {"at most": operator.le, "at least": operator.ge}


@dataclass(frozen=True, slots=True)
class Check:
    """One threshold. found: the measured value; NaN if it could not be measured, which counts as missed."""

    what: str
    found: float
    bound: Literal["at most", "at least"]
    limit: float

    @property
    def met(self) -> bool:
        """Whether the threshold is met."""
        return bool(COMPARED[self.bound](self.found, self.limit))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A scenario's figures and thresholds."""

    name: str
    figures: Mapping[str, object]
    checks: Sequence[Check]

    @property
    def met(self) -> bool:
        """Whether all thresholds are met."""
        return all(check.met for check in self.checks)

    def as_dict(self) -> dict[str, object]:
        """The JSON document for the result's file; values that could not be measured are null."""
        checks = [{**asdict(check), "found": _known(check.found), "met": check.met} for check in self.checks]
        return {**self.figures, "checks": checks, "met": self.met}

    def show(self) -> None:
        """Print the figures and thresholds as a table."""
        table = Table("", "measured", "threshold", "", title=self.name)
        for name, value in self.figures.items():
            table.add_row(name, _text(value), "", "")
        table.add_section()
        for check in self.checks:
            table.add_row(
                check.what, _text(check.found), f"{check.bound} {check.limit:g}", "met" if check.met else "MISSED"
            )
        Console(width=120).print(table)


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that a fraction `share` of the values do not exceed; NaN if there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def worst(values: Iterable[float]) -> float:
    """The largest value; NaN if there are none or one is NaN, which `max` would ignore."""
    all_values = list(values)
    return max(all_values) if all_values and not any(map(math.isnan, all_values)) else math.nan


def waits(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """p50, p99 and max of the latencies, in milliseconds."""
    seconds = [one.wait for one in outcomes]
    named = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: round(quantile(seconds, share) * 1e3, 1) for name, share in named.items()}


def statuses(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Number of requests by status, or by outcome for those without a status."""
    counted = Counter(str(one.status) if one.fate == "answered" else one.fate for one in outcomes)
    return dict(sorted(counted.items()))


def good(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The outcomes with status 200."""
    return [one for one in outcomes if one.status == 200]


def lag_ms(outcomes: Iterable[Outcome]) -> float:
    """p99 of the generator's own delay, including connecting; far above a few ms the figures are not of the server."""
    return round(quantile((one.sent - one.due for one in outcomes if one.sent), 0.99) * 1e3, 2)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(one)}" for key, one in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
