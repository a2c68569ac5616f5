"""Compares predictions: exactly, except for numbers, which may differ by floating-point summation order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

from likewise.core.results import Failed, Result

RELATIVE, ABSOLUTE = 1e-4, 1e-6  # float32 sums in a different order; a wrong row differs by far more


def values_match(one: object, other: object) -> bool:
    """Whether two plain values are equal, with a tolerance for numbers; NaN equals NaN."""
    if _number(one) and _number(other):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(values_match(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(values_match, one, other))
    return type(one) is type(other) and one == other


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def results_match(one: Result, other: Result) -> bool:
    """Whether two results match; two failures always do, whatever their messages."""
    if isinstance(one, Failed) or isinstance(other, Failed):
        return isinstance(one, Failed) and isinstance(other, Failed)
    return values_match(one.value, other.value)


def describe_result(result: Result) -> str:
    """A result as text for an error message, at most 200 characters."""
    text = f"error {result.error.cause}" if isinstance(result, Failed) else repr(result.value)
    return text if len(text) <= 200 else text[:200] + "…"
