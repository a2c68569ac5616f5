"""Comparison of two predictions: the same, close, or different at a path."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.parity.compare import SHOWN, Mismatch, RefusedRow, Tolerance, compare, paths, shown

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
A_BIT, A_LOT = 0.01, 0.5
CLOSE, EXACT, WIDE = Tolerance(0.02), Tolerance(), Tolerance(A_LOT)


@given(JSON)
def test_prediction_equals_itself(value: object) -> None:
    assert compare(value, value, EXACT) == 0.0
    assert compare(value, json.loads(json.dumps(value)), EXACT) == 0.0


@given(JSON, JSON)
def test_comparison_is_symmetric(here: object, there: object) -> None:
    one, other = compare(here, there, CLOSE), compare(there, here, CLOSE)
    assert isinstance(one, Mismatch) == isinstance(other, Mismatch)
    assert isinstance(one, Mismatch) or one == other


@given(st.floats(-1e9, 1e9), st.floats(0, 1))
def test_numbers_are_close_within_the_tolerance(number: float, fraction: float) -> None:
    other = number + fraction * 0.02 * max(1.0, abs(number))
    difference = compare({"p": [number]}, {"p": [other]}, Tolerance(0.02 * 1.001))
    assert difference == pytest.approx(abs(number - other))
    assert isinstance(compare(number, number + 0.06 * max(1.0, abs(number)), CLOSE), Mismatch)


@pytest.mark.parametrize(
    ("here", "there", "path"),
    [
        ("positive", "negative", "prediction"),
        (1, True, "prediction"),
        (1, "1", "prediction"),
        (0, None, "prediction"),
        (10**400, 1.5, "prediction"),
        (1.0, math.inf, "prediction"),
        ([1], [1, 2], "prediction"),
        ([1], {"0": 1}, "prediction"),
        ({"a": 1}, {"b": 1}, "a"),
        ({"b": 1}, {"b": 1, "c d": None}, '["c d"]'),
        ({"a": "x", "p": 0.5}, {"a": "y", "p": 0.5}, "a"),
        ({"a": {"b": [[1, 2]]}}, {"a": {"b": [[1, 3]]}}, "a.b[0][1]"),
        (RefusedRow("ROW_REFUSED"), "positive", "prediction"),
        ('{"label": ["positive"]}', '{"label": ["negative"]}', "label[0]"),
        ({"text": '{"r": {"label": ["a"]}}'}, {"text": '{"r": {"label": ["b"]}}'}, "text.r.label[0]"),
        ('{"label"', '{"label" ', "prediction"),
    ],
)
def test_different_predictions_differ_at_a_path(here: object, there: object, path: str) -> None:
    for tolerance in (EXACT, Tolerance(0.001)):
        found = compare(here, there, tolerance)
        assert isinstance(found, Mismatch)
        assert found.path == path
        assert found.here != found.there


def test_the_first_difference_is_shown() -> None:
    here, there = {"response": {"prediction_label": ["positive"]}}, {"response": {"prediction_label": ["negative"]}}
    assert compare(here, there, CLOSE) == Mismatch("response.prediction_label[0]", "positive", "negative")


def test_whole_numbers_are_compared_exactly_unless_they_have_their_own_tolerance() -> None:
    for tolerance in (EXACT, CLOSE, WIDE, Tolerance(0.02, {"other": 0.1})):
        assert isinstance(compare({"label": 282}, {"label": 283}, tolerance), Mismatch)
        assert isinstance(compare(2**53, 2**53 + 1, tolerance), Mismatch)
    assert compare({"count": [282]}, {"count": [283]}, Tolerance(0.0, {"count": 0.1})) == 1.0
    assert compare(1, 1.01, CLOSE) == pytest.approx(0.01)


def test_a_part_of_a_prediction_has_the_tolerance_of_its_path() -> None:
    tolerance = Tolerance(0.02, {"score": 0.0001}, base=("score",))
    assert isinstance(compare(0.5, 0.501, tolerance), Mismatch)
    assert isinstance(compare({"a": [0.5]}, {"a": [0.501]}, tolerance), Mismatch)


def test_paths_of_a_prediction_are_those_of_its_named_parts() -> None:
    assert paths({"a": [{"b": 1}, {"c": '{"d": [2]}'}], "e": "[x"}) == {"a", "a.b", "a.c", "a.c.d", "e"}
    assert paths([1, None]) == set()


def test_json_documents_in_text_are_compared_as_documents() -> None:
    here, there = (json.dumps({"label": ["positive"], "p": p}) for p in (0.9, 0.9 + A_BIT))
    assert compare(here, there, CLOSE) == pytest.approx(A_BIT)
    assert isinstance(compare(here, there, Tolerance(A_BIT / 2)), Mismatch)


def test_parts_have_their_own_tolerance() -> None:
    tolerance = Tolerance(0.0, {"score": 0.1, "rest.of": 0.2, "rest": 0.001})
    assert compare({"score": [1.0]}, {"score": [1.05]}, tolerance) == pytest.approx(0.05)
    assert compare({"rest": {"of": 1.0}}, {"rest": {"of": 1.15}}, tolerance) == pytest.approx(0.15)
    assert isinstance(compare({"rest": {"x": 1.0}}, {"rest": {"x": 1.15}}, tolerance), Mismatch)
    assert isinstance(compare({"other": 1.0}, {"other": 1.0001}, tolerance), Mismatch)


def test_refusals_with_different_codes_agree() -> None:
    assert compare(RefusedRow("ROW_REFUSED"), RefusedRow("QUARANTINED"), EXACT) == 0.0


def test_nan_equals_nan() -> None:
    assert compare(math.nan, math.nan, EXACT) == 0.0
    assert isinstance(compare(math.nan, 1.0, WIDE), Mismatch)


def test_long_prediction_is_shortened() -> None:
    assert len(shown("a" * 1000)) == SHOWN
    assert shown({"a": 1}) == '{"a": 1}'
    assert shown(RefusedRow("X")) == "refused: X"
    assert shown(RefusedRow("X", "why")) == "refused: X: why"
