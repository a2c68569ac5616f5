"""When two answers are the same, close, or different."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.core.signature import Field
from likewise.parity.check import _compare, _pairs
from likewise.parity.compare import SHOWN, Difference, RefusedRow, distance, shown

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
A_BIT, A_LOT = 0.01, 0.5
CLOSE = 0.02


@given(JSON)
def test_an_answer_is_the_same_as_itself(answer: object) -> None:
    assert distance(answer, answer, 0.0) == 0.0
    assert distance(answer, json.loads(json.dumps(answer)), 0.0) == 0.0
    assert distance(json.dumps(answer), json.dumps(answer, indent=1), 0.0) in (0.0, None)


@given(JSON, JSON)
def test_it_does_not_matter_which_is_here(here: object, there: object) -> None:
    assert distance(here, there, CLOSE) == distance(there, here, CLOSE)


@given(st.floats(-1e9, 1e9), st.floats(0, 1))
def test_numbers_are_close_within_the_tolerance(number: float, share: float) -> None:
    other = number + share * CLOSE * max(1.0, abs(number))
    found = distance({"p": [number]}, {"p": [other]}, CLOSE * 1.001)
    assert found == pytest.approx(abs(number - other))
    assert distance(number, number + 3 * CLOSE * max(1.0, abs(number)), CLOSE) is None


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("positive", "negative"),
        (1, True),
        (1, "1"),
        (0, None),
        ([1], [1, 2]),
        ([1], {"0": 1}),
        ({"a": 1}, {"b": 1}),
        ({"a": "x", "p": 0.5}, {"a": "y", "p": 0.5}),
        (RefusedRow("ROW_REFUSED"), "positive"),
        ('{"label": "positive"}', '{"label": "negative"}'),
        ('{"label"', '{"label" '),
    ],
)
def test_what_differs(here: object, there: object) -> None:
    assert distance(here, there, A_LOT) is None


def test_a_document_in_a_text_is_compared_as_one() -> None:
    here, there = (json.dumps({"label": ["positive"], "p": p}) for p in (0.9, 0.9 + A_BIT))
    assert distance(here, there, CLOSE) == pytest.approx(A_BIT)
    assert distance(here, there, A_BIT / 2) is None


def test_refusals_agree_whatever_they_are_called() -> None:
    assert distance(RefusedRow("ROW_REFUSED"), RefusedRow("QUARANTINED"), 0.0) == 0.0


def test_what_is_not_a_number_is_the_same_as_itself() -> None:
    assert distance(math.nan, math.nan, 0.0) == 0.0
    assert distance(math.nan, 1.0, A_LOT) is None


def test_a_long_answer_is_cut_short() -> None:
    assert len(shown("a" * 1000)) == SHOWN
    assert shown({"a": 1}) == '{"a": 1}'
    assert shown(RefusedRow("X")) == "refused: X"


def test_the_rows_of_a_place_are_counted() -> None:
    here = [{"text": "a"}, 0.5, 0.5, "d", RefusedRow("ROW_REFUSED")]
    there = ["a", 0.5, 0.51, "e", RefusedRow("QUARANTINED")]
    found = _compare("there", None, _pairs(here, there, (TEXT,)), CLOSE, 1.0)
    counts = (found.rows, found.same, found.close, found.differ, found.refused)
    assert counts == (5, 3, 1, 1, 1)
    assert found.largest == pytest.approx(A_BIT)
    assert found.first == (Difference(3, "d", "e"),)
    assert not found.agrees


TEXT = Field("text", "string", required=True, raw={})


def test_a_refusal_of_all_rows_differs_in_each() -> None:
    found = _compare("there", None, _pairs(["a", "b"], [RefusedRow("ROW_REFUSED")], None), CLOSE, 1.0)
    assert (found.rows, found.differ) == (2, 2)
