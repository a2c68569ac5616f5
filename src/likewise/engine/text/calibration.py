"""Calibrates bf16: computes the guard from two passes over the same texts, and decides whether to offer bf16."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from likewise.engine.text.compiled import Calibration
from likewise.engine.text.guard import Logits, drift, within

FLOOR = 0.01  # logits; the smallest guard, however small the drift
MAX_RECOMPUTED = 0.2  # fraction of rows: above this, bf16 costs more than it saves
TOLERANCE = 1e-3  # relative to the largest logit: what a different fp32 summation order may change


def calibrate(fast: Logits, exact: Logits, *, factor: float, source: str) -> Calibration:
    """Determine the guard with which `fast` gives the labels of `exact`, and whether that is worthwhile.

    fast, exact: logits [texts, labels] in bf16 and fp32.  factor: the safety factor for the drift.
    Each half of the texts is also checked with the guard computed from the other half: a label that changed outside it
    shows that the drift of unseen texts cannot be predicted.  Then `refused` is set in the result: bf16 is not offered.
    """
    moved = np.asarray(fast.argmax(axis=1) != exact.argmax(axis=1))
    if not (np.isfinite(fast).all() and np.isfinite(exact).all()):
        return Calibration(source, len(fast), 0.0, factor, 0.0, 1.0, int(moved.sum()), 0.0, "a logit is not finite")
    drifts = drift(fast, exact)
    guard = _guard(drifts, factor)
    again = within(fast, guard)
    outside = moved & ~again | _unpredicted(fast, moved, drifts, factor)
    return Calibration(
        source=source,
        texts=len(fast),
        drift=_rounded(float(drifts.max(initial=0.0))),
        factor=factor,
        guard=guard,
        share=round(float(again.mean()), 4),
        moved=int(moved.sum()),
        agreement=round(float((~moved | again).mean()), 4),
        refused=_why_refused(int(outside.sum()), float(again.mean())),
        outside=int(outside.sum()),
    )


def why_unequal(compiled: Logits, reference: Logits) -> str | None:
    """How the compiled classifier's fp32 logits [texts, labels] differ from the reference's; None if they match."""
    scale = max(1.0, float(np.abs(reference).max(initial=0.0)))
    difference = float(np.abs(compiled - reference).max(initial=0.0))
    if difference <= TOLERANCE * scale:
        return None
    return f"its logits differ from the reference's by {difference:.3g}, more than {TOLERANCE * scale:.3g}"


def _guard(drifts: NDArray[np.float64], factor: float) -> float:
    """`factor` times the largest drift, at least FLOOR; rounded up, and also sufficient for the rounded drift."""
    largest = float(drifts.max(initial=0.0))
    return float(np.ceil(max(FLOOR, factor * max(largest, _rounded(largest))) * 1e6) / 1e6)


def _rounded(drift: float) -> float:
    return round(drift, 6)


def _unpredicted(
    fast: Logits, moved: NDArray[np.bool_], drifts: NDArray[np.float64], factor: float
) -> NDArray[np.bool_]:
    """Which labels changed outside the guard computed from the other half of the texts; [texts]."""
    unpredicted = np.zeros(len(fast), dtype=np.bool_)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        others = np.delete(drifts, half)
        unpredicted[half] = moved[half] & ~within(fast[half], _guard(others, factor))
    return unpredicted


def _why_refused(outside: int, share: float) -> str:
    if outside:
        return f"{outside} labels changed although their margin was above the guard"
    if share > MAX_RECOMPUTED:
        return f"{share:.0%} of the texts would have to be recomputed in fp32, more than {MAX_RECOMPUTED:.0%}"
    return ""
