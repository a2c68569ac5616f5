"""How long a run takes, learned while it runs."""

from __future__ import annotations

MEMORY = 0.95  # weight of what was known, at each new run: about the last twenty count
FIRST_COST = 1.0


class CostModel:
    """seconds = `base` + `per_token` * tokens, by exponentially weighted least squares over the runs so far."""

    def __init__(self) -> None:
        self.base = 0.0
        self.per_token = 0.0
        self.mean_cost = FIRST_COST
        """Tokens of an item, on the average of those lately prepared: the guess for one that is not yet."""
        self.runs = 0
        self.largest = 0
        """Tokens of the largest run so far."""
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)  # weight, x, y, xx, xy

    def learn(self, tokens: int, seconds: float) -> None:
        """A run of so many tokens took so long."""
        self.runs += 1
        self.largest = max(self.largest, tokens)
        new = (1.0, float(tokens), seconds, float(tokens) ** 2, tokens * seconds)
        self._sums = tuple(MEMORY * old + now for old, now in zip(self._sums, new, strict=True))  # type: ignore[assignment]
        n, x, y, xx, xy = self._sums
        spread = n * xx - x * x
        slope = (n * xy - x * y) / spread if spread > 1e-9 * n * xx else y / x
        self.per_token = min(max(slope, 0.0), y / x)  # neither part is negative
        self.base = max(0.0, (y - self.per_token * x) / n)

    def see(self, costs: list[int]) -> None:
        """Items with these costs were prepared."""
        mean = sum(costs) / len(costs)
        weight = min(1.0, len(costs) / 20)
        self.mean_cost += weight * (mean - self.mean_cost)

    def seconds(self, tokens: float, runs: float) -> float:
        """The time of so many tokens in so many runs."""
        return self.base * runs + self.per_token * tokens
