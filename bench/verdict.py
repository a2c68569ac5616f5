"""What a scenario found, and whether that is good enough: a missed threshold is shown, never hidden."""

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
    """One threshold. found: NaN where it could not be measured, which misses."""

    what: str
    found: float
    bound: Literal["at most", "at least"]
    limit: float

    @property
    def met(self) -> bool:
        """Whether it holds."""
        return bool(COMPARED[self.bound](self.found, self.limit))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A scenario's figures, and its thresholds."""

    name: str
    figures: Mapping[str, object]
    checks: Sequence[Check]

    @property
    def met(self) -> bool:
        """Whether all of its thresholds hold."""
        return all(check.met for check in self.checks)

    def as_dict(self) -> dict[str, object]:
        """For the result's file; what could not be measured is null."""
        checks = [{**asdict(check), "found": _known(check.found), "met": check.met} for check in self.checks]
        return {**self.figures, "checks": checks, "met": self.met}

    def show(self) -> None:
        """A small table."""
        table = Table("", "found", "wanted", "", title=self.name)
        for name, value in self.figures.items():
            table.add_row(name, _text(value), "", "")
        table.add_section()
        for check in self.checks:
            table.add_row(
                check.what, _text(check.found), f"{check.bound} {check.limit:g}", "met" if check.met else "MISSED"
            )
        Console(width=120).print(table)


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed; NaN for none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def worst(values: Iterable[float]) -> float:
    """The largest; NaN for none, and where one of them is NaN: `max` would pass over it."""
    found = list(values)
    return max(found) if found and not any(map(math.isnan, found)) else math.nan


def waits(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """p50, p99 and max of the waits, in milliseconds."""
    seconds = [one.wait for one in outcomes]
    named = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: round(quantile(seconds, share) * 1e3, 1) for name, share in named.items()}


def statuses(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many of each status, or of what became of those without one."""
    counted = Counter(str(one.status) if one.fate == "answered" else one.fate for one in outcomes)
    return dict(sorted(counted.items()))


def good(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those that were answered with 200."""
    return [one for one in outcomes if one.status == 200]


def lag_ms(outcomes: Iterable[Outcome]) -> float:
    """p99 of how late the generator itself sent, connecting included: far above a few ms it is what was measured."""
    return round(quantile((one.sent - one.due for one in outcomes if one.sent), 0.99) * 1e3, 2)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(one)}" for key, one in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
