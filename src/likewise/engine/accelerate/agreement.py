"""Compares predictions of a compiled model with those of the original, and states what the comparison proves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from likewise.bundles.format import Manifest
from likewise.core.bounds import stated
from likewise.core.results import Failed, Result
from likewise.core.text import json_document

VECTOR = 8
"""Lists of at least so many numbers are vectors, which are compared by their cosine."""

SCORE, COSINE = 0.02, 1e-3
"""What bf16 may change: a number (relative above 1), and a vector (1 - cosine)."""

ROUNDING = 1e-3
"""What another order of summation in fp32 may change."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest accepted difference of a number (relative above 1), and 1 - cosine of a vector."""

    number: float = ROUNDING
    cosine: float = 1e-5


@dataclass(frozen=True, slots=True)
class Agreement:
    """How predictions in one precision compare with those of `load_model`.

    rows: compared, without those that both refuse.  differ: those with another label, text or whole number, or outside
    the tolerance.  largest: the largest difference of a number, or of a vector (1 - cosine).  tolerance, cosine: what
    was accepted.  source: of the rows.  first: the first row that differs, for people.  reference: what predicted the
    rows for comparison.
    """

    rows: int
    differ: int
    largest: float
    tolerance: float
    cosine: float
    source: str
    first: str = ""
    reference: str = "load_model"

    def __str__(self) -> str:
        same = f"{self.differ:,} other predictions than" if self.differ else "the same predictions as"
        numbers = f"; numbers within {self.largest:.2g} (tolerance {self.tolerance:g})" if self.largest else ""
        rows = f"{self.rows:,} rows ({self.source})"
        return f"{same} {self.reference}'s on {rows}, {stated(self.differ, self.rows)}{numbers}"

    @property
    def stored(self) -> Mapping[str, object]:
        """For the manifest."""
        return asdict(self)


def agreements_of(manifest: Manifest) -> dict[str, Agreement]:
    """The agreements of the compiled engines of a bundle, by label."""
    stored = manifest.measured.get("agreement")
    found = {}
    for name, each in stored.items() if isinstance(stored, Mapping) else ():
        with suppress(TypeError):  # of another version: it is only information
            found[name] = Agreement(**each)
    return found


def agreement(found: Sequence[Result], expected: Sequence[Result], tolerance: Tolerance, source: str) -> Agreement:
    """Compare predictions of the same rows; those that fail in both prove nothing."""
    largest, differ, first, rows = 0.0, 0, "", 0
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, Failed) and isinstance(other, Failed):
            continue
        rows += 1
        distance = _results(one, other, tolerance)
        if distance is None:
            differ += 1
            first = first or f"{_shown(other)} became {_shown(one)}"
        else:
            largest = max(largest, distance)
    return Agreement(rows, differ, largest, tolerance.number, tolerance.cosine, source, first)


def _results(one: Result, other: Result, tolerance: Tolerance) -> float | None:
    if isinstance(one, Failed) or isinstance(other, Failed):
        return None
    return distance(one.value, other.value, tolerance)


def distance(one: object, other: object, tolerance: Tolerance) -> float | None:
    """The largest difference of two predictions if they agree, else None; texts with JSON documents are compared so."""
    if isinstance(one, float) and isinstance(other, float):
        return _numbers(one, other, tolerance.number)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        same = one.keys() == other.keys()
        return _largest(distance(one[name], other[name], tolerance) for name in one) if same else None
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return None
        if len(one) >= VECTOR and all(isinstance(each, float) for each in (*one, *other)):
            return _vectors(one, other, tolerance.cosine)
        return _largest(distance(*pair, tolerance) for pair in zip(one, other, strict=True))
    if isinstance(one, str) and isinstance(other, str) and one != other:
        documents = json_document(one), json_document(other)
        return None if None in documents else distance(*documents, tolerance)
    return 0.0 if type(one) is type(other) and one == other else None


def _numbers(one: float, other: float, tolerance: float) -> float | None:
    if one == other or (one != one and other != other):
        return 0.0
    difference = abs(one - other)
    return difference if difference <= tolerance * max(1.0, abs(one), abs(other)) else None


def _vectors(one: Sequence[float], other: Sequence[float], tolerance: float) -> float | None:
    if list(one) == list(other):
        return 0.0
    lengths = math.hypot(*one), math.hypot(*other)
    if not all(math.isfinite(each) and each > 0 for each in lengths):
        return None
    difference = 1 - math.fsum(a * b for a, b in zip(one, other, strict=True)) / (lengths[0] * lengths[1])
    alike = difference <= tolerance and abs(lengths[0] - lengths[1]) <= 10 * tolerance * max(lengths)
    return max(0.0, difference) if alike else None


def _largest(distances: Iterable[float | None]) -> float | None:
    largest = 0.0
    for each in distances:
        if each is None:
            return None
        largest = max(largest, each)
    return largest


def _shown(result: Result) -> str:
    text = f"error {result.error.cause}" if isinstance(result, Failed) else repr(result.value)
    return text if len(text) <= 200 else text[:200] + "…"
