"""fp32's labels at a faster precision's speed: rows whose answer is a near thing are computed again, exactly.

A label can only move where its margin (the largest logit minus the second) is smaller than what the faster arithmetic
may have changed. `drift` measures that change, `guarded` computes again whatever lies within a multiple of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from likewise.engine.text.torch_forward import Forward

Logits = NDArray[np.float32]


def margins(logits: Logits) -> NDArray[np.float64]:
    """Of each row the largest logit minus the second; [rows]. NaN where a logit is NaN."""
    ordered = np.sort(logits.astype(np.float64), axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def within(logits: Logits, guard: float) -> NDArray[np.bool_]:
    """Which rows are too near to call: their margin is below `guard`, or no number; [rows]."""
    return np.asarray(~(margins(logits) >= guard))


def drift(fast: Logits, exact: Logits) -> NDArray[np.float64]:
    """By how much the lead of the exact label over the others changed in the fast pass; [rows].

    The lead has a sign, so a row whose label moved drifted by more than its margin in the fast pass: every guard above
    the largest drift holds every label that moved.
    """
    return np.abs(_leads(fast, exact.argmax(axis=1)) - margins(exact))


def guarded(fast: Forward, exact: Forward, guard: float) -> Forward:
    """`fast`, and `exact` for the rows whose margin in `fast` is below `guard`.

    Which pass answers a row is decided by that row alone. guard: in logits, from calibration.
    """

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Logits:
        logits = fast(ids, mask)
        again = within(logits, guard)
        if not again.any():
            return logits
        answered = logits.copy()  # a runtime may own the array that it returned
        answered[again] = exact(ids[again], mask[again])  # as long as it was: a row's length decides its last digits
        return answered

    return forward


def later(load: Callable[[], Forward]) -> Forward:
    """The pass that `load` opens, when it is first asked for; once, whichever threads ask."""
    lock = threading.Lock()
    loaded: list[Forward] = []

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Logits:
        with lock:
            if not loaded:
                loaded.append(load())
        return loaded[0](ids, mask)

    return forward


def _leads(logits: Logits, labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """The logit of each row's label minus the best of the others; [rows]."""
    rows, values = np.arange(len(logits)), logits.astype(np.float64)
    own = values[rows, labels]
    values[rows, labels] = -np.inf
    return np.asarray(own - values.max(axis=1))
