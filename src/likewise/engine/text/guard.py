"""Gives fp32's labels at a faster precision's speed, by recomputing borderline rows in fp32.

A label can only change if its margin (the largest logit minus the second) is smaller than the error of the faster
arithmetic. `drift` measures that error; `guarded` recomputes rows whose margin is below a multiple of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from likewise.engine.text.torch_forward import Forward

Logits = NDArray[np.float32]


def margins(logits: Logits) -> NDArray[np.float64]:
    """The largest logit of each row minus the second largest; [rows]. NaN if a logit is NaN."""
    ordered = np.sort(logits.astype(np.float64), axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def within(logits: Logits, guard: float) -> NDArray[np.bool_]:
    """Which rows are borderline: their margin is below `guard`, or NaN; [rows]."""
    return np.asarray(~(margins(logits) >= guard))


def drift(fast: Logits, exact: Logits) -> NDArray[np.float64]:
    """How much the lead of the exact label over the others changed in the fast pass; [rows].

    The lead is signed, so a row whose label changed has a drift larger than its margin in the fast pass: a guard above
    the largest drift covers every label that changed.
    """
    return np.abs(_leads(fast, exact.argmax(axis=1)) - margins(exact))


def guarded(fast: Forward, exact: Forward, guard: float) -> Forward:
    """A forward pass that uses `fast`, and recomputes rows whose margin is below `guard` with `exact`.

    The decision for a row does not depend on other rows. guard: in logits, from the calibration.
    """

    def forward(*inputs: NDArray[np.int64]) -> Logits:
        logits = fast(*inputs)
        again = within(logits, guard)
        if not again.any():
            return logits
        combined = logits.copy()  # the runtime may own the array that it returned
        combined[again] = exact(*(each[again] for each in inputs))  # with the same padding: it affects the last digits
        return combined

    return forward


def lazy_forward(load: Callable[[], Forward]) -> Forward:
    """A forward pass that calls `load` on first use, only once even with several threads."""
    lock = threading.Lock()
    loaded: list[Forward] = []

    def forward(*inputs: NDArray[np.int64]) -> Logits:
        with lock:
            if not loaded:
                loaded.append(load())
        return loaded[0](*inputs)

    return forward


def _leads(logits: Logits, labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """The logit of each row's label minus the largest of the others; [rows]."""
    rows, values = np.arange(len(logits)), logits.astype(np.float64)
    own = values[rows, labels]
    values[rows, labels] = -np.inf
    return np.asarray(own - values.max(axis=1))
