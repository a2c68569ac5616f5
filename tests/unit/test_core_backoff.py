"""Delays between restarts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.core.backoff import Backoff

FIRST_S, LONGEST_S, STEADY_S = 0.1, 10.0, 30.0


@pytest.fixture
def backoff() -> Backoff:
    return Backoff(FIRST_S, LONGEST_S, STEADY_S, at_once=True)


def test_first_restart_is_immediate_and_later_ones_are_delayed(backoff: Backoff) -> None:
    pauses = [backoff.pause_s(1) for _ in range(10)]
    assert pauses == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, LONGEST_S, LONGEST_S])
    assert backoff.failures == 0


def test_restart_after_a_steady_run_is_immediate(backoff: Backoff) -> None:
    for _ in range(5):
        backoff.pause_s(0, worked=False)
    assert backoff.failures == 5
    assert backoff.pause_s(STEADY_S, worked=False) == 0
    assert backoff.failures == 0
    assert backoff.pause_s(STEADY_S - 1) == pytest.approx(FIRST_S)


@given(st.lists(st.booleans()))
def test_failures_are_counted_since_the_last_success(endings: list[bool]) -> None:
    backoff = Backoff(FIRST_S, LONGEST_S, STEADY_S)
    for worked in endings:
        assert 0 <= backoff.pause_s(1, worked=worked) <= LONGEST_S
    since = endings[::-1].index(True) if True in endings else len(endings)
    assert backoff.failures == since


@given(st.lists(st.floats(0, 3 * STEADY_S)))
def test_delays_double_until_a_steady_run(uptimes: list[float]) -> None:
    backoff, expected = Backoff(FIRST_S, LONGEST_S, STEADY_S), FIRST_S
    for uptime in uptimes:
        expected = FIRST_S if uptime >= STEADY_S else expected
        assert backoff.pause_s(uptime) == expected
        expected = min(LONGEST_S, 2 * expected)
