"""Windows: groups of items within a token budget that go through the model together."""

from __future__ import annotations

from collections.abc import Sequence


def windows(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Group items of similar cost so that no group's padded cost exceeds `budget`.

    `costs`: tokens per item, at least 1 each. Returns lists of indices into `costs`; every index is in exactly one
    list, longest first, ties in input order. A group of n items whose longest costs c is padded to n * c tokens; an
    item that exceeds the budget by itself is a separate group.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1 token, got {budget}")
    groups: list[list[int]] = []
    capacity = 0
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        if capacity < 1:
            groups.append([])
            capacity = max(1, budget // max(1, costs[index]))
        groups[-1].append(index)
        capacity -= 1
    return groups
