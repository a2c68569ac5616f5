"""The guard of bf16: which rows are recomputed, in any batch, and how the guard is calibrated."""

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
    """A fake forward pass that selects each row's logits by its first id, and records its inputs."""

    def forward(ids: Ids, mask: Ids) -> Logits:
        if calls is not None:
            calls.append(ids)
        assert ids.shape == mask.shape
        result = values[ids[:, 0]]
        result.setflags(write=False)  # like memory owned by a runtime
        return result

    return forward


def window(rows: list[int], lengths: list[int]) -> tuple[Ids, Ids]:
    """Inputs for the rows with these numbers, padded to the longest."""
    longest = max(lengths[row] for row in rows)
    ids, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        ids[index, : lengths[row]], mask[index, : lengths[row]] = row, 1
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
def test_rows_give_the_same_result_in_any_batch(both: tuple[Logits, Logits], guard: float, data: st.DataObject) -> None:
    fast, exact = both
    near = within(fast, guard)
    expected = np.where(near[:, None], exact, fast)
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=len(fast), max_size=len(fast)))
    rows = data.draw(st.lists(st.integers(0, len(fast) - 1), min_size=1, max_size=12))
    recomputed: list[Ids] = []
    result = guarded(table(fast), table(exact, recomputed), guard)(*window(rows, lengths))
    np.testing.assert_array_equal(result, expected[rows])
    borderline = [row for row in rows if near[row]]
    assert [list(ids[:, 0]) for ids in recomputed] == ([borderline] if borderline else [])
    if borderline:
        assert recomputed[0].shape[1] == max(lengths[row] for row in rows)


@pytest.mark.slow
@given(passes())
def test_guard_above_the_largest_drift_preserves_every_label(both: tuple[Logits, Logits]) -> None:
    fast, exact = both
    guard = 1.5 * float(drift(fast, exact).max()) + 0.01
    lengths = [1] * len(fast)
    result = guarded(table(fast), table(exact), guard)(*window(list(range(len(fast))), lengths))
    assert result.argmax(axis=1).tolist() == exact.argmax(axis=1).tolist()


def test_drift_of_a_changed_label_exceeds_its_new_margin() -> None:
    fast, exact = logits((0.0, 0.3), (2.0, 0.0)), logits((0.2, 0.0), (1.5, 0.0))
    assert drift(fast, exact) == pytest.approx([0.5, 0.5])
    assert margins(fast) == pytest.approx([0.3, 2.0])


def test_nan_is_recomputed() -> None:
    fast, exact = logits((float("nan"), 1.0), (5.0, 0.0)), logits((1.0, 0.0), (0.0, 5.0))
    result = guarded(table(fast), table(exact), 0.1)(*window([0, 1], [1, 1]))
    assert result.tolist() == [[1.0, 0.0], [5.0, 0.0]]


def test_exact_pass_is_opened_once_for_the_first_row_that_needs_it() -> None:
    opened: list[int] = []
    fast, exact = logits((5.0, 0.0), (0.1, 0.0)), logits((5.0, 0.0), (0.0, 0.1))

    def load() -> Forward:
        opened.append(threading.get_ident())
        return table(exact)

    forward = guarded(table(fast), lazy_forward(load), 1.0)
    forward(*window([0], [1, 1]))
    assert not opened
    start = threading.Barrier(4)

    def run_forward() -> None:
        start.wait()
        assert forward(*window([1], [1, 1])).tolist() == [[0.0, pytest.approx(0.1)]]

    threads = [threading.Thread(target=run_forward) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


def test_failed_opening_of_a_pass_is_retried() -> None:
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
    """Logits of two labels, with these leads of the first."""
    return logits(*((value, 0.0) for value in values))


CLEAR = [3.0, -3.0] * 20


def test_guard_is_a_multiple_of_the_drift() -> None:
    exact, fast = leads(*CLEAR, 0.1, 0.1), leads(*CLEAR, -0.1, -0.1)
    calibration = calibrate(fast, exact, factor=1.5, source="tests")
    assert (calibration.drift, calibration.guard) == (pytest.approx(0.2), pytest.approx(0.3, abs=1e-5))
    assert calibration.guard >= 1.5 * 0.2
    assert (calibration.moved, calibration.agreement, calibration.share, calibration.texts) == (
        2,
        1.0,
        round(2 / 42, 4),
        42,
    )
    assert (calibration.refused, calibration.outside) == ("", 0)


def test_guard_has_a_minimum() -> None:
    assert calibrate(leads(*CLEAR), leads(*CLEAR), factor=1.5, source="tests").guard == FLOOR


def test_label_changed_outside_the_guard_of_the_other_half_refuses_bf16() -> None:
    """One text in forty drifts much more than the others, so an unseen text may drift even further."""
    exact, fast = leads(*CLEAR, 1.0), leads(*CLEAR, -1.0)
    calibration = calibrate(fast, exact, factor=1.5, source="tests")
    assert (calibration.refused, calibration.outside) == (
        "1 labels changed although their margin was above the guard",
        1,
    )
    assert str(calibration).startswith("not offered: 1 labels")


def test_too_many_borderline_texts_refuse_bf16() -> None:
    exact, fast = leads(*CLEAR, *[0.1] * 12), leads(*CLEAR, *[0.0] * 12)
    calibration = calibrate(fast, exact, factor=1.5, source="tests")
    assert calibration.refused == "23% of the texts would have to be recomputed in fp32, more than 20%"


def test_nan_logit_refuses_bf16() -> None:
    calibration = calibrate(leads(*CLEAR, float("nan")), leads(*CLEAR, 1.0), factor=1.5, source="tests")
    assert calibration.refused == "a logit is not finite"


def test_wrong_conversion_is_detected() -> None:
    assert why_unequal(leads(3.0, 1.0005), leads(3.0, 1.0)) is None
    difference = why_unequal(leads(3.0, 1.1), leads(3.0, 1.0))
    assert difference == "its logits differ from the reference's by 0.1, more than 0.003"
    assert why_unequal(leads(3.0, float("nan")), leads(3.0, 1.0)) is not None
