"""Statistics of a version's responses: counts, and a histogram of response times with buckets of 10 %.

Plain data that can be summed: each replica has its own, and the watcher adds them up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

BUCKET_RATIO = 1.1  # between the limits of neighboring buckets
MIN_S = 1e-6


@dataclass(slots=True)
class VersionStats:
    """One version's statistics. good: successful requests; failed: requests without a response, or with an error that
    is the version's fault; late: those of the failed that timed out; times: the successful ones by bucket.
    """

    good: int = 0
    failed: int = 0
    late: int = 0
    times: Counter[int] = field(default_factory=Counter)

    @property
    def judged(self) -> int:
        """The number of requests that count as evidence about this version."""
        return self.good + self.failed

    @property
    def failing(self) -> float:
        """The fraction of failed requests, from 0 to 1."""
        return self.failed / self.judged if self.judged else 0.0

    def add(self, seconds: float) -> None:
        """Count a successful response that took `seconds`."""
        self.good += 1
        self.times[math.ceil(math.log(max(seconds, MIN_S), BUCKET_RATIO))] += 1

    def quantile(self, fraction: float) -> float:
        """The response time in seconds at the quantile `fraction`, at most 10 % too high; 0.0 without responses."""
        rank, seen = fraction * self.good, 0
        for each in sorted(self.times):
            seen += self.times[each]
            if seen >= rank:
                return float(BUCKET_RATIO**each)
        return 0.0

    def beyond(self, seconds: float) -> int:
        """The number of responses that certainly took longer than `seconds`."""
        return sum(count for each, count in self.times.items() if BUCKET_RATIO ** (each - 1) >= seconds)

    def as_dict(self) -> dict[str, Any]:
        """The statistics as JSON types; `sum` reads them again."""
        times = {str(each): count for each, count in self.times.items()}
        return {"good": self.good, "failed": self.failed, "late": self.late, "times": times}

    @classmethod
    def sum(cls, parts: Iterable[Mapping[str, Any]]) -> Self:
        """The sum of statistics from `as_dict`."""
        total = cls()
        for each in parts:
            total.good += each["good"]
            total.failed += each["failed"]
            total.late += each["late"]
            total.times.update({int(at): count for at, count in each["times"].items()})
        return total

    def summary(self) -> dict[str, Any]:
        """For display and receipts: requests, failed, late, p50_ms, p95_ms."""
        p50, p95 = (round(self.quantile(fraction) * 1000, 2) for fraction in (0.5, 0.95))
        return {"requests": self.judged, "failed": self.failed, "late": self.late, "p50_ms": p50, "p95_ms": p95}
