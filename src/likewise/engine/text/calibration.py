"""Is bf16 right for these weights, and where is fp32 asked again?  The guard, from two passes over the same texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from likewise.engine.text.compiled import Calibration
from likewise.engine.text.guard import Logits, drift, within

FLOOR = 0.01  # logits; no guard is narrower, however little drifted
MOST_AGAIN = 0.2  # share of rows: with more, bf16 costs more than it saves
TOLERANCE = 1e-3  # of the largest logit: what another order of fp32's sums may change


def calibrate(fast: Logits, exact: Logits, *, factor: float, source: str) -> Calibration:
    """What the guard must be for `fast` to give the labels of `exact`, both [texts, labels], and whether that pays.

    Each half of the texts also gets the guard of the other half: a label that moved outside that one says that the
    drift of texts unseen cannot be foretold, and bf16 is refused.
    """
    moved = np.asarray(fast.argmax(axis=1) != exact.argmax(axis=1))
    if not (np.isfinite(fast).all() and np.isfinite(exact).all()):
        return Calibration(source, len(fast), 0.0, factor, 0.0, 1.0, int(moved.sum()), 0.0, "a logit is no number")
    drifts = drift(fast, exact)
    guard = _guard(drifts, factor)
    again = within(fast, guard)
    outside = moved & ~again | _unforeseen(fast, moved, drifts, factor)
    return Calibration(
        source=source,
        texts=len(fast),
        drift=_written(float(drifts.max(initial=0.0))),
        factor=factor,
        guard=guard,
        share=round(float(again.mean()), 4),
        moved=int(moved.sum()),
        agreement=round(float((~moved | again).mean()), 4),
        refused=_why_not(int(outside.sum()), float(again.mean())),
        outside=int(outside.sum()),
    )


def why_unequal(compiled: Logits, reference: Logits) -> str | None:
    """Why fp32 of the compiled classifier is not the reference's, both [texts, labels]; None where it is."""
    scale = max(1.0, float(np.abs(reference).max(initial=0.0)))
    away = float(np.abs(compiled - reference).max(initial=0.0))
    if away <= TOLERANCE * scale:
        return None
    return f"its logits are {away:.3g} away from the reference's, more than {TOLERANCE * scale:.3g}"


def _guard(drifts: NDArray[np.float64], factor: float) -> float:
    """Rounded up, so that it is never below `factor` times the drift, as measured or as written."""
    largest = float(drifts.max(initial=0.0))
    return float(np.ceil(max(FLOOR, factor * max(largest, _written(largest))) * 1e6) / 1e6)


def _written(drift: float) -> float:
    return round(drift, 6)


def _unforeseen(
    fast: Logits, moved: NDArray[np.bool_], drifts: NDArray[np.float64], factor: float
) -> NDArray[np.bool_]:
    """Labels that moved, outside the guard that the other half of the texts would have given."""
    found = np.zeros(len(fast), dtype=np.bool_)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        others = np.delete(drifts, half)
        found[half] = moved[half] & ~within(fast[half], _guard(others, factor))
    return found


def _why_not(outside: int, share: float) -> str:
    if outside:
        return f"{outside} labels moved though their margin was not near"
    if share > MOST_AGAIN:
        return f"{share:.0%} of the texts would have to be computed again, more than {MOST_AGAIN:.0%}"
    return ""
