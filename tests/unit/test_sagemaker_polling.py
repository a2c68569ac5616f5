"""The poller, with a simulated clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from likewise.targets.sagemaker.polling import LONGEST_S, Poller


class Clock:
    """A clock that only advances when `sleep` is called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@given(st.floats(0.1, 5000), st.floats(0.1, 5000))
def test_polling_stops_at_the_result_or_the_timeout(ready_s: float, timeout_s: float) -> None:
    clock = Clock()
    poller = Poller(sleep=clock.sleep, now=lambda: clock.now)
    result = poller.until(lambda: ("done" if clock.now >= ready_s else None, ""), timeout_s)
    assert (result == "done") == (ready_s <= timeout_s)
    assert clock.now <= timeout_s + 1e-6
    assert all(0 <= pause <= LONGEST_S for pause in clock.pauses)


def test_only_changes_of_the_state_are_reported() -> None:
    clock, lines = Clock(), []
    states = iter(["Creating", "Creating", "InService"])

    def check() -> tuple[str | None, str]:
        state = next(states)
        return (state if state == "InService" else None), state

    Poller(lines.append, clock.sleep, lambda: clock.now).until(check, 60)
    assert [line.split(" ")[0] for line in lines] == ["Creating", "InService"]
