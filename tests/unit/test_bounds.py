"""What a sample proves: the exact binomial limit."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.core.bounds import percent, rows_for, stated, upper_bound


@pytest.mark.parametrize(
    ("found", "rows", "text"),
    [(0, 2500, "at most 0.12 % differ, at 95 % confidence"), (0, 2000, "at most 0.15 % differ, at 95 % confidence")],
)
def test_bound_is_stated(found: int, rows: int, text: str) -> None:
    assert stated(found, rows) == text


@given(st.integers(1, 100_000), st.floats(0.5, 0.999))
def test_without_a_find_the_bound_has_a_closed_form(rows: int, confidence: float) -> None:
    assert upper_bound(0, rows, confidence) == pytest.approx(1 - (1 - confidence) ** (1 / rows), rel=1e-9)


@given(st.integers(1, 60).flatmap(lambda rows: st.tuples(st.integers(0, rows - 1), st.just(rows))))
def test_at_the_bound_so_few_finds_have_the_remaining_probability(sample: tuple[int, int]) -> None:
    found, rows = sample
    bound = Fraction(upper_bound(found, rows))
    chance = sum(math.comb(rows, k) * bound**k * (1 - bound) ** (rows - k) for k in range(found + 1))
    assert float(chance) == pytest.approx(0.05, rel=1e-6)


@given(st.floats(0.0001, 0.5), st.floats(0.5, 0.999))
def test_suggested_sample_is_the_smallest_that_proves_the_bound(bound: float, confidence: float) -> None:
    rows = rows_for(bound, confidence)
    assert upper_bound(0, rows, confidence) <= bound * (1 + 1e-9)
    assert rows == 1 or upper_bound(0, rows - 1, confidence) > bound * (1 - 1e-9)


def test_if_every_row_differs_all_may() -> None:
    assert upper_bound(5, 5) == upper_bound(0, 0) == 1.0


def test_percentages_have_two_digits_where_they_are_small() -> None:
    assert [percent(each) for each in (0.0011975, 0.000012, 0.95, 0.999, 1.0)] == [
        "0.12 %", "0.0012 %", "95 %", "99.9 %", "100 %",
    ]  # fmt: skip
