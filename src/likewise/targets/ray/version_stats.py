"""What two versions were seen to do over the same time: counts, and times in classes of 10 %.

Plain data that adds up: each replica keeps its own, the watcher sums them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

STEP = 1.1  # from one class of times to the next
SHORTEST_S = 1e-6


@dataclass(slots=True)
class Side:
    """One version. good: requests that it answered; failed: those that it did not answer, or refused for a fault of its
    own; late: of the failed, those that nobody waited for any longer; times: good ones by class.
    """

    good: int = 0
    failed: int = 0
    late: int = 0
    times: Counter[int] = field(default_factory=Counter)

    @property
    def judged(self) -> int:
        """All requests that tell something of this version."""
        return self.good + self.failed

    @property
    def failing(self) -> float:
        """The share of the failed, from 0 to 1."""
        return self.failed / self.judged if self.judged else 0.0

    def add(self, seconds: float) -> None:
        """One more good answer, after so many seconds."""
        self.good += 1
        self.times[math.ceil(math.log(max(seconds, SHORTEST_S), STEP))] += 1

    def quantile(self, share: float) -> float:
        """Seconds that at least this share of the answers did not exceed, at most 10 % too many; 0.0 without any."""
        wanted, seen = share * self.good, 0
        for each in sorted(self.times):
            seen += self.times[each]
            if seen >= wanted:
                return float(STEP**each)
        return 0.0

    def beyond(self, seconds: float) -> int:
        """Answers that surely took longer than so many seconds."""
        return sum(count for each, count in self.times.items() if STEP ** (each - 1) >= seconds)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        times = {str(each): count for each, count in self.times.items()}
        return {"good": self.good, "failed": self.failed, "late": self.late, "times": times}

    @classmethod
    def sum(cls, sides: Iterable[Mapping[str, Any]]) -> Self:
        """All of them, as `as_dict` gives them, together."""
        total = cls()
        for each in sides:
            total.good += each["good"]
            total.failed += each["failed"]
            total.late += each["late"]
            total.times.update({int(at): count for at, count in each["times"].items()})
        return total

    def told(self) -> dict[str, Any]:
        """For people and receipts: requests, failed, late, p50_ms, p95_ms."""
        p50, p95 = (round(self.quantile(share) * 1000, 2) for share in (0.5, 0.95))
        return {"requests": self.judged, "failed": self.failed, "late": self.late, "p50_ms": p50, "p95_ms": p95}
