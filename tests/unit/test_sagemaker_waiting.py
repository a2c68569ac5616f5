"""Waiting by a clock of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from likewise.targets.sagemaker.polling import LONGEST_S, Patience


class Clock:
    """Seconds pass when it sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@given(st.floats(0.1, 5000), st.floats(0.1, 5000))
def test_it_waits_as_long_as_it_may_and_no_longer(comes_s: float, timeout_s: float) -> None:
    clock = Clock()
    patience = Patience(sleep=clock.sleep, now=lambda: clock.now)
    found = patience.until(lambda: ("it" if clock.now >= comes_s else None, ""), timeout_s)
    assert (found == "it") == (comes_s <= timeout_s)
    assert clock.now <= timeout_s + 1e-6
    assert all(0 <= pause <= LONGEST_S for pause in clock.pauses)


def test_it_tells_what_has_changed_and_no_more() -> None:
    clock, told = Clock(), []
    states = iter(["Creating", "Creating", "InService"])

    def look() -> tuple[str | None, str]:
        state = next(states)
        return (state if state == "InService" else None), state

    Patience(told.append, clock.sleep, lambda: clock.now).until(look, 60)
    assert [line.split(" ")[0] for line in told] == ["Creating", "InService"]
