"""What a sample proves about a fraction.

Source: C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits illustrated in the case of the
binomial, Biometrika 26 (1934): the exact limit, here on one side.
"""

from __future__ import annotations

import math

CONFIDENCE = 0.95
_STEPS = 60  # of the bisection, which is exact to a double


def upper_bound(found: int, rows: int, confidence: float = CONFIDENCE) -> float:
    """The largest fraction of which a random sample of `rows` would show at most `found`, at this confidence; 0 to 1.

    With `found` 0 it is `1 - (1 - confidence) ** (1 / rows)`.  1 if there are no rows.
    """
    if found >= rows:
        return 1.0
    low, high = found / rows, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _at_most(found, rows, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def rows_for(bound: float, confidence: float = CONFIDENCE) -> int:
    """The size of the smallest sample that, without a single find, proves that the fraction is at most `bound`."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-bound))


def stated(found: int, rows: int, confidence: float = CONFIDENCE) -> str:
    """`at most 0.12 % differ, at 95 % confidence`."""
    bound = percent(upper_bound(found, rows, confidence))
    return f"at most {bound} differ, at {percent(confidence)} confidence"


def percent(fraction: float) -> str:
    """A percentage with two significant digits, or as many as it has above 1 %."""
    return f"{100 * fraction:.2g} %" if fraction < 0.01 else f"{100 * fraction:.4g} %"


def _at_most(found: int, rows: int, fraction: float) -> float:
    """The probability that at most `found` of `rows` are of a kind with this share."""
    if fraction >= 1.0:
        return 0.0
    logs = [
        math.lgamma(rows + 1)
        - math.lgamma(k + 1)
        - math.lgamma(rows - k + 1)
        + (k * math.log(fraction) if k else 0.0)
        + (rows - k) * math.log1p(-fraction)
        for k in range(found + 1)
    ]
    return math.fsum(map(math.exp, logs))
