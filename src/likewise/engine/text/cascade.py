"""Classifies a text by its first tokens, if these decide clearly, and by the whole text otherwise.

This may change labels.  It is only offered if the user accepts a fraction of other labels, and texts prove it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from likewise.core.bounds import rows_for
from likewise.engine.text.guard import Logits, margins
from likewise.engine.text.torch_forward import Forward

PREFIXES = (32, 64, 96, 128, 160)
"""Tokens that are tried."""

CHOOSING = 2
"""One of so many texts chooses the prefix and its margin; the others prove the share."""

SPENT = 0.35
"""The part of the permitted other labels that the choice may use: it looks better on its own texts than on others."""

ENOUGH = 4
"""Times as many texts as it takes without any other label, so that some may have one."""

SAMPLE = 4000
"""Texts that are used if there are so many: a choice from few of them does not hold for others."""

WORTH = 0.9
"""Share of the computation above which a cascade is not worth it."""


@dataclass(frozen=True, slots=True)
class Cascade:
    """Texts of more than `tokens` tokens are classified by these, if the margin of the logits is at least `margin`.

    cost: the share of the computation on the texts that it was chosen with.
    """

    tokens: int
    margin: float
    cost: float

    def __str__(self) -> str:
        return f"the first {self.tokens} tokens decide with a margin of {self.margin:.3g}; {self.cost:.0%} of the work"


def texts_for(share: float) -> int:
    """How many texts it takes to choose a cascade and to prove that it gives at least `share` equal labels."""
    return math.ceil(rows_for(1 - share) * CHOOSING / (CHOOSING - 1)) + CHOOSING


def choose(
    prefixes: Mapping[int, Logits], exact: Logits, lengths: NDArray[np.int64], *, share: float, guard: float
) -> Cascade | None:
    """The cascade that saves most and gives enough labels of the whole texts; None if none is worth it.

    prefixes: logits [texts, labels] of the first tokens, by their number.  exact: of the whole texts, whose `lengths`
    are in tokens.  share: of equal labels.  guard: the smallest margin.
    """
    found = [_cascade(tokens, logits, exact, lengths, share, guard) for tokens, logits in prefixes.items()]
    best = min(found, key=lambda each: each.cost, default=None)
    return best if best is not None and best.cost <= WORTH else None


def _cascade(
    tokens: int, logits: Logits, exact: Logits, lengths: NDArray[np.int64], share: float, guard: float
) -> Cascade:
    long = lengths > tokens
    lead = margins(logits)
    wrong = long & (logits.argmax(axis=1) != exact.argmax(axis=1))
    permitted = int(SPENT * (1 - share) * len(exact))
    leads = np.sort(lead[wrong])[::-1]
    margin = max(guard, float(np.nextafter(leads[permitted], np.inf)) if len(leads) > permitted else 0.0)
    again = long & ~(lead >= margin)
    work = np.where(long, tokens, lengths).sum() + lengths[again].sum()
    return Cascade(tokens, margin, round(float(work / max(1, lengths.sum())), 4))


def cascaded(prefix: Forward, full: Forward, cascade: Cascade, mask: int) -> Forward:
    """A forward pass that uses `prefix` for the first tokens and `full` for texts that these do not decide.

    mask: the position of the mask among the inputs.  The decision for a text does not depend on other texts.
    """

    def forward(*inputs: NDArray[np.int64]) -> Logits:
        ends = inputs[mask].shape[1] - inputs[mask][:, ::-1].argmax(axis=1)
        rest = np.asarray(ends <= cascade.tokens)
        if rest.all():
            return full(*inputs)
        long = np.flatnonzero(~rest)
        first = prefix(*(each[long, : cascade.tokens] for each in inputs))
        rest[long] = ~(margins(first) >= cascade.margin)
        logits = np.empty((len(rest), first.shape[1]), dtype=np.float32)
        logits[long] = first
        if rest.any():
            logits[rest] = full(*(each[rest] for each in inputs))
        return logits

    return forward


def proving(count: int) -> list[int]:
    """The positions, of `count` texts, of those that prove a share."""
    return [at for at in range(count) if at % CHOOSING]


def choosing(count: int) -> Sequence[int]:
    """The positions of the others."""
    return range(0, count, CHOOSING)
