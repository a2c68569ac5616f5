"""Pauses between starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.core.backoff import Backoff

FIRST_S, LONGEST_S, STEADY_S = 0.1, 10.0, 30.0


@pytest.fixture
def backoff() -> Backoff:
    return Backoff(FIRST_S, LONGEST_S, STEADY_S, at_once=True)


def test_the_first_start_is_at_once_and_the_next_ones_ever_later(backoff: Backoff) -> None:
    pauses = [backoff.pause_s(1) for _ in range(10)]
    assert pauses == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, LONGEST_S, LONGEST_S])
    assert backoff.failures == 0


def test_one_that_was_steady_is_started_at_once_again(backoff: Backoff) -> None:
    for _ in range(5):
        backoff.pause_s(0, worked=False)
    assert backoff.failures == 5
    assert backoff.pause_s(STEADY_S, worked=False) == 0
    assert backoff.failures == 0
    assert backoff.pause_s(STEADY_S - 1) == pytest.approx(FIRST_S)


@given(st.lists(st.booleans()))
def test_failures_are_those_since_one_has_worked(endings: list[bool]) -> None:
    backoff = Backoff(FIRST_S, LONGEST_S, STEADY_S)
    for worked in endings:
        assert 0 <= backoff.pause_s(1, worked=worked) <= LONGEST_S
    since = endings[::-1].index(True) if True in endings else len(endings)
    assert backoff.failures == since


@given(st.lists(st.floats(0, 3 * STEADY_S)))
def test_pauses_double_until_one_was_steady(lives: list[float]) -> None:
    backoff, expected = Backoff(FIRST_S, LONGEST_S, STEADY_S), FIRST_S
    for lived in lives:
        expected = FIRST_S if lived >= STEADY_S else expected
        assert backoff.pause_s(lived) == expected
        expected = min(LONGEST_S, 2 * expected)
