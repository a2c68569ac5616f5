"""fp32's labels behind bf16: which rows are asked again, whatever they travel with, and what the guard must be."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from likewise.engine.text.calibration import FLOOR, calibrate, why_unequal
from likewise.engine.text.guard import Logits, drift, guarded, lazy_forward, margins, within
from likewise.engine.text.torch_forward import Forward

Ids = NDArray[np.int64]


def logits(*rows: tuple[float, ...]) -> Logits:
    return np.array(rows, dtype=np.float32)


def table(values: Logits, calls: list[Ids] | None = None) -> Forward:
    """A pass that answers a row by its first id, and keeps what it was asked."""

    def forward(ids: Ids, mask: Ids) -> Logits:
        if calls is not None:
            calls.append(ids)
        assert ids.shape == mask.shape
        answered = values[ids[:, 0]]
        answered.setflags(write=False)  # as a runtime's own memory may be
        return answered

    return forward


def window(rows: list[int], lengths: list[int]) -> tuple[Ids, Ids]:
    """Rows of those numbers, padded to the longest."""
    longest = max(lengths[row] for row in rows)
    ids, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
    for place, row in enumerate(rows):
        ids[place, : lengths[row]], mask[place, : lengths[row]] = row, 1
    return ids, mask


NUMBERS = st.floats(-4, 4, width=32)


@st.composite
def passes(draw: st.DrawFn) -> tuple[Logits, Logits]:
    """Logits of two passes over the same texts."""
    count, labels = draw(st.integers(1, 8)), draw(st.integers(2, 4))
    row = st.lists(NUMBERS, min_size=labels, max_size=labels)
    both = [draw(st.lists(row, min_size=count, max_size=count)) for _ in range(2)]
    fast, exact = (np.array(each, dtype=np.float32) for each in both)
    return fast, exact


@given(passes(), st.floats(0, 4), st.data())
def test_rows_answer_the_same_in_any_company(both: tuple[Logits, Logits], guard: float, data: st.DataObject) -> None:
    fast, exact = both
    near = within(fast, guard)
    expected = np.where(near[:, None], exact, fast)
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=len(fast), max_size=len(fast)))
    rows = data.draw(st.lists(st.integers(0, len(fast) - 1), min_size=1, max_size=12))
    asked: list[Ids] = []
    answered = guarded(table(fast), table(exact, asked), guard)(*window(rows, lengths))
    np.testing.assert_array_equal(answered, expected[rows])
    again = [row for row in rows if near[row]]
    assert [list(ids[:, 0]) for ids in asked] == ([again] if again else [])
    if again:
        assert asked[0].shape[1] == max(lengths[row] for row in rows)


@pytest.mark.slow
@given(passes())
def test_a_guard_above_the_largest_drift_holds_every_label(both: tuple[Logits, Logits]) -> None:
    fast, exact = both
    guard = 1.5 * float(drift(fast, exact).max()) + 0.01
    lengths = [1] * len(fast)
    answered = guarded(table(fast), table(exact), guard)(*window(list(range(len(fast))), lengths))
    assert answered.argmax(axis=1).tolist() == exact.argmax(axis=1).tolist()


def test_a_label_that_moved_has_drifted_by_more_than_its_new_margin() -> None:
    fast, exact = logits((0.0, 0.3), (2.0, 0.0)), logits((0.2, 0.0), (1.5, 0.0))
    assert drift(fast, exact) == pytest.approx([0.5, 0.5])
    assert margins(fast) == pytest.approx([0.3, 2.0])


def test_what_is_no_number_is_asked_again() -> None:
    fast, exact = logits((float("nan"), 1.0), (5.0, 0.0)), logits((1.0, 0.0), (0.0, 5.0))
    answered = guarded(table(fast), table(exact), 0.1)(*window([0, 1], [1, 1]))
    assert answered.tolist() == [[1.0, 0.0], [5.0, 0.0]]


def test_the_exact_pass_is_opened_by_the_first_row_that_needs_it_and_once() -> None:
    opened: list[int] = []
    fast, exact = logits((5.0, 0.0), (0.1, 0.0)), logits((5.0, 0.0), (0.0, 0.1))

    def load() -> Forward:
        opened.append(threading.get_ident())
        return table(exact)

    forward = guarded(table(fast), lazy_forward(load), 1.0)
    forward(*window([0], [1, 1]))
    assert not opened
    start = threading.Barrier(4)

    def ask() -> None:
        start.wait()
        assert forward(*window([1], [1, 1])).tolist() == [[0.0, pytest.approx(0.1)]]

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


def test_a_pass_that_does_not_open_is_tried_again() -> None:
    tries: list[int] = []

    def load() -> Forward:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("not yet")
        return table(logits((1.0, 0.0)))

    forward = lazy_forward(load)
    with pytest.raises(RuntimeError):
        forward(*window([0], [1]))
    assert forward(*window([0], [1])).tolist() == [[1.0, 0.0]]


# --- calibration ------------------------------------------------------------------------------------------------------


def leads(*values: float) -> Logits:
    """Two labels, the first leading by so much."""
    return logits(*((value, 0.0) for value in values))


SURE = [3.0, -3.0] * 20


def test_the_guard_is_a_multiple_of_the_drift() -> None:
    exact, fast = leads(*SURE, 0.1, 0.1), leads(*SURE, -0.1, -0.1)
    found = calibrate(fast, exact, factor=1.5, source="tests")
    assert (found.drift, found.guard) == (pytest.approx(0.2), pytest.approx(0.3, abs=1e-5))
    assert found.guard >= 1.5 * 0.2
    assert (found.moved, found.agreement, found.share, found.texts) == (2, 1.0, round(2 / 42, 4), 42)
    assert (found.refused, found.outside) == ("", 0)


def test_no_drift_still_has_a_guard() -> None:
    assert calibrate(leads(*SURE), leads(*SURE), factor=1.5, source="tests").guard == FLOOR


def test_a_label_that_the_other_half_did_not_foretell_refuses_bf16() -> None:
    """One text in forty drifts as no other does: the next one unseen may drift further."""
    exact, fast = leads(*SURE, 1.0), leads(*SURE, -1.0)
    found = calibrate(fast, exact, factor=1.5, source="tests")
    assert (found.refused, found.outside) == ("1 labels moved though their margin was not near", 1)
    assert str(found).startswith("not offered: 1 labels")


def test_a_guard_that_holds_too_many_refuses_bf16() -> None:
    exact, fast = leads(*SURE, *[0.1] * 12), leads(*SURE, *[0.0] * 12)
    found = calibrate(fast, exact, factor=1.5, source="tests")
    assert found.refused == "23% of the texts would have to be computed again, more than 20%"


def test_a_logit_that_is_no_number_refuses_bf16() -> None:
    found = calibrate(leads(*SURE, float("nan")), leads(*SURE, 1.0), factor=1.5, source="tests")
    assert found.refused == "a logit is no number"


def test_a_conversion_that_computes_something_else_is_seen() -> None:
    assert why_unequal(leads(3.0, 1.0005), leads(3.0, 1.0)) is None
    assert (
        why_unequal(leads(3.0, 1.1), leads(3.0, 1.0)) == "its logits are 0.1 away from the reference's, more than 0.003"
    )
    assert why_unequal(leads(3.0, float("nan")), leads(3.0, 1.0)) is not None
