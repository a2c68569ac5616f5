"""Cost model: the duration of engine runs, learned from past runs."""

from __future__ import annotations

MEMORY = 0.95  # decay per run, so about the last twenty runs count
FIRST_COST = 1.0


class CostModel:
    """seconds = `base` + `per_token` * tokens, by exponentially weighted least squares over the runs so far."""

    def __init__(self) -> None:
        self.base = 0.0
        self.per_token = 0.0
        self.mean_cost = FIRST_COST
        """Mean tokens per recently prepared item: the estimate for items that are not prepared yet."""
        self.runs = 0
        self.largest = 0
        """Tokens of the largest run so far."""
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)  # weight, x, y, xx, xy

    def learn(self, tokens: int, seconds: float) -> None:
        """Record the duration of a run with `tokens`."""
        self.runs += 1
        self.largest = max(self.largest, tokens)
        new = (1.0, float(tokens), seconds, float(tokens) ** 2, tokens * seconds)
        self._sums = tuple(MEMORY * old + now for old, now in zip(self._sums, new, strict=True))  # type: ignore[assignment]
        n, x, y, xx, xy = self._sums
        spread = n * xx - x * x
        slope = (n * xy - x * y) / spread if spread > 1e-9 * n * xx else y / x
        self.per_token = min(max(slope, 0.0), y / x)  # neither part is negative
        self.base = max(0.0, (y - self.per_token * x) / n)

    def record_costs(self, costs: list[int]) -> None:
        """Record the costs of prepared items."""
        mean = sum(costs) / len(costs)
        weight = min(1.0, len(costs) / 20)
        self.mean_cost += weight * (mean - self.mean_cost)

    def seconds(self, tokens: float, runs: float) -> float:
        """Expected seconds for `tokens` in `runs`."""
        return self.base * runs + self.per_token * tokens
