"""Token-budget windows: which items go through the model together."""

from __future__ import annotations

from collections.abc import Sequence


def windows(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Group items of near-equal cost so that no group's padded cost passes `budget`.

    `costs`: tokens an item, at least 1 each. Returns lists of indices into `costs`; every index stands in exactly one
    list, longest first, ties in input order. A group of n items whose longest costs c is padded to n * c tokens; an
    item that alone passes the budget is a group of its own.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1 token, got {budget}")
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        if room < 1:
            groups.append([])
            room = max(1, budget // max(1, costs[index]))
        groups[-1].append(index)
        room -= 1
    return groups
