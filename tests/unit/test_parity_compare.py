"""Comparison of two predictions: the same, close, or different."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.cli.verify import _facts
from likewise.core.signature import Field
from likewise.parity.check import Parity, _compare, _pairs
from likewise.parity.compare import SHOWN, Difference, RefusedRow, distance, shown
from likewise.targets.http_client import Served

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
A_BIT, A_LOT = 0.01, 0.5
CLOSE = 0.02


@given(JSON)
def test_prediction_equals_itself(value: object) -> None:
    assert distance(value, value, 0.0) == 0.0
    assert distance(value, json.loads(json.dumps(value)), 0.0) == 0.0
    assert distance(json.dumps(value), json.dumps(value, indent=1), 0.0) in (0.0, None)


@given(JSON, JSON)
def test_distance_is_symmetric(here: object, there: object) -> None:
    assert distance(here, there, CLOSE) == distance(there, here, CLOSE)


@given(st.floats(-1e9, 1e9), st.floats(0, 1))
def test_numbers_are_close_within_the_tolerance(number: float, fraction: float) -> None:
    other = number + fraction * CLOSE * max(1.0, abs(number))
    difference = distance({"p": [number]}, {"p": [other]}, CLOSE * 1.001)
    assert difference == pytest.approx(abs(number - other))
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
def test_different_predictions_differ(here: object, there: object) -> None:
    assert distance(here, there, A_LOT) is None


def test_json_documents_in_text_are_compared_as_documents() -> None:
    here, there = (json.dumps({"label": ["positive"], "p": p}) for p in (0.9, 0.9 + A_BIT))
    assert distance(here, there, CLOSE) == pytest.approx(A_BIT)
    assert distance(here, there, A_BIT / 2) is None


def test_refusals_with_different_codes_agree() -> None:
    assert distance(RefusedRow("ROW_REFUSED"), RefusedRow("QUARANTINED"), 0.0) == 0.0


def test_nan_equals_nan() -> None:
    assert distance(math.nan, math.nan, 0.0) == 0.0
    assert distance(math.nan, 1.0, A_LOT) is None


def test_long_prediction_is_shortened() -> None:
    assert len(shown("a" * 1000)) == SHOWN
    assert shown({"a": 1}) == '{"a": 1}'
    assert shown(RefusedRow("X")) == "refused: X"


def test_rows_of_a_backend_are_counted() -> None:
    here = [{"text": "a"}, 0.5, 0.5, "d", RefusedRow("ROW_REFUSED")]
    there = ["a", 0.5, 0.51, "e", RefusedRow("QUARANTINED")]
    backend = _compare("there", Served(), _pairs(here, there, (TEXT,)), CLOSE, 1.0)
    counts = (backend.rows, backend.same, backend.close, backend.differ, backend.refused)
    assert counts == (5, 3, 1, 1, 1)
    assert backend.largest == pytest.approx(A_BIT)
    assert backend.first == (Difference(3, "d", "e"),)
    assert not backend.agrees


TEXT = Field("text", "string", required=True, raw={})


def test_refusal_of_a_whole_request_differs_in_every_row() -> None:
    backend = _compare("there", Served(), _pairs(["a", "b"], [RefusedRow("ROW_REFUSED")], None), CLOSE, 1.0)
    assert (backend.rows, backend.differ) == (2, 2)


def test_table_names_another_build_of_the_same_model() -> None:
    parity = Parity("sha256:m", "sha256:b", "torch/fp32", "golden.csv", 1, 0.0, ())
    shown_as = {
        Served("sha256:m", "sha256:b"): "same",
        Served("sha256:m", "sha256:c"): "same model, other build",
        Served("sha256:m"): "same model, unknown build",
        Served("sha256:n", "sha256:c"): "sha256:n…",
        Served(): "unknown",
    }
    for served, text in shown_as.items():
        assert _facts(_compare("there", served, [(1, 1)], CLOSE, 1.0), parity)[1] == text
