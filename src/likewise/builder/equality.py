"""Are two answers the same?  Texts to the letter, numbers to what the order of a sum may change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

from likewise.core.results import Failed, Result

RELATIVE, ABSOLUTE = 1e-4, 1e-6  # float32 sums in another order; a wrong row differs by far more


def alike(one: object, other: object) -> bool:
    """Whether two plain values are equal, numbers within tolerance, NaN like NaN."""
    if _number(one) and _number(other):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return type(one) is type(other) and one == other


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def same(one: Result, other: Result) -> bool:
    """Whether two results are alike; two failures are, whatever their words."""
    if isinstance(one, Failed) or isinstance(other, Failed):
        return isinstance(one, Failed) and isinstance(other, Failed)
    return alike(one.value, other.value)


def shown(result: Result) -> str:
    """A result in a line of an error."""
    text = f"error {result.error.cause}" if isinstance(result, Failed) else repr(result.value)
    return text if len(text) <= 200 else text[:200] + "…"
