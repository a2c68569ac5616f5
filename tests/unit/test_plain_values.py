"""A model's output as plain values: the shape that MLflow's server writes, split into one value per row."""

from __future__ import annotations

import dataclasses
import enum
import io
import itertools
import json
from collections import namedtuple
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pydantic
import pytest
import scipy.sparse
import torch
from mlflow.pyfunc.scoring_server import predictions_to_json

from likewise.core.errors import ModelFailed
from likewise.engine.plain_values import per_row, plain
from likewise.wire.encode import Form, encode

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 6)
Pair = namedtuple("Pair", "left right")


class Text(str, enum.Enum):  # noqa: UP042  whose str() is not its value
    A = "a"


class Count(enum.IntEnum):
    ONE = 1


class Reading(pydantic.BaseModel):
    value: int
    when: datetime | None = None


@dataclasses.dataclass
class Score:
    label: object
    score: object


AS_MLFLOW: dict[str, Any] = {
    "unnamed series": pd.Series([1.0, 2.0]),
    "named series": pd.Series([1, 2], name="y"),
    "series of records": pd.Series([{"a": 1}, {"a": np.float32(0.5)}]),
    "integer names": pd.DataFrame([[1, 2], [3, 4]]),
    "category": pd.DataFrame({"c": pd.Categorical(["a", "b"])}),
    "zoned": pd.DataFrame({"t": pd.to_datetime(["2026-01-02", "2026-07-02"]).tz_localize("Europe/Paris")}),
    "nanoseconds": pd.DataFrame({"t": pd.to_datetime(["2026-01-02T00:00:00.000000001", "2026-01-02T00:00:00.1"])}),
    "column": np.array([[1.0], [2.0]]),
    "matrix": np.array([[1, 2], [3, 4]], dtype=np.uint8),
    "cube": np.zeros((2, 2, 2), dtype=np.float16),
    "structured": np.array([(1, "a"), (2, "b")], dtype=[("x", "i4"), ("y", "U1")]),
    "objects": np.array([{"a": np.float32(0.5)}, [np.int8(1), None]], dtype=object),
    "text": np.array(["a", "ß"]),
    "days": np.array(["2026-01-02", "2026-01-03"], dtype="datetime64[D]"),
    "large": np.array([2**64 - 1, 1], dtype=np.uint64),
    "records": [{"a": 1}, {"b": [np.int64(2)]}],
    "models": [Reading(value=1), Reading(value=2, when=MOMENT)],
    "tuples": [Pair(1, "a"), (2, "b")],
    "enumerations": [Text.A, Count.ONE],
}


@pytest.mark.parametrize("raw", AS_MLFLOW.values(), ids=AS_MLFLOW)
def test_rows_have_the_values_that_mlflows_server_writes(raw: Any) -> None:
    printed = io.StringIO()
    predictions_to_json(raw, printed)
    expected = json.loads(printed.getvalue())
    assert json.loads(encode(Form.MLFLOW, plain(raw))) == expected
    assert json.loads(encode(Form.MLFLOW, per_row(raw, 2))) == expected


PROBABILITIES = np.array([[0.25, 0.75], [0.5, 0.5]])
BY_ROW: dict[str, tuple[Any, list[object]]] = {
    "arrays of unequal rank": (
        {"label": np.array(["a", "b"]), "probabilities": PROBABILITIES},
        [{"label": "a", "probabilities": [0.25, 0.75]}, {"label": "b", "probabilities": [0.5, 0.5]}],
    ),
    "one array": ({"out": np.array([[1.0], [2.0]])}, [{"out": [1.0]}, {"out": [2.0]}]),
    "frames, series, lists": (
        {"f": pd.DataFrame({"a": [1, 2]}, index=[5, 7]), "s": pd.Series([3, 4], index=[9, 8]), "l": [5, 6]},
        [{"f": {"a": 1}, "s": 3, "l": 5}, {"f": {"a": 2}, "s": 4, "l": 6}],
    ),
    "nested": (
        {"p": {"l": np.array([1, 2]), "q": [3, 4]}, "r": (5, 6)},
        [{"p": {"l": 1, "q": 3}, "r": 5}, {"p": {"l": 2, "q": 4}, "r": 6}],
    ),
    "records of columns": ({"maps": [{"x": 0.1}, {"y": 0.2}]}, [{"maps": {"x": 0.1}}, {"maps": {"y": 0.2}}]),
    "object of columns": (
        Score(["a", "b"], np.array([1, 2])),
        [{"label": "a", "score": 1}, {"label": "b", "score": 2}],
    ),
    "levels of names": (
        pd.DataFrame([[1, 2], [3, 4]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])),
        [{"('a', 'x')": 1, "('a', 'y')": 2}, {"('a', 'x')": 3, "('a', 'y')": 4}],
    ),
    "nullable integers": (pd.DataFrame({"n": pd.array([2**60 + 1, None], "Int64")}), [{"n": 2**60 + 1}, {"n": None}]),
    "extension array": (pd.array([True, None], "boolean"), [True, None]),
    "sparse matrix": (scipy.sparse.csr_matrix([[1.0, 0.0], [0.0, 2.0]]), [[1.0, 0.0], [0.0, 2.0]]),
    "sparse array": (scipy.sparse.csc_array([[1, 0], [0, 2]]), [[1, 0], [0, 2]]),
    "tensor": (torch.tensor([[1.0], [2.0]], requires_grad=True), [[1.0], [2.0]]),
    "narrow tensor": (torch.tensor([1.0, 2.0], dtype=torch.bfloat16), [1.0, 2.0]),
    "sparse tensor": (torch.eye(2).to_sparse(), [[1.0, 0.0], [0.0, 1.0]]),
    "tensors": ([torch.tensor(1), torch.tensor([2, 3])], [1, [2, 3]]),
    "generator": ((n for n in (np.int64(1), "x")), [1, "x"]),
    "generator of a column": ({"a": iter([1, 2])}, [{"a": 1}, {"a": 2}]),
    "dataclasses": (
        [Score("a", np.float32(0.5)), Score("b", pd.NA)],
        [{"label": "a", "score": 0.5}, {"label": "b", "score": None}],
    ),
    "decimals": ([Decimal("1.10"), Decimal(2)], ["1.10", "2"]),
    "bytes": (np.array([b"a", b"\xff"]), [b"a", b"\xff"]),
    "nanoseconds": (
        np.array(["2026-01-02T00:00:00.000000001", "NaT"], "M8[ns]"),
        ["2026-01-02T00:00:00.000000001", None],
    ),
    "far years": (np.array(["12026-01-01", "2026-01-01"], "M8[s]"), ["12026-01-01T00:00:00", datetime(2026, 1, 1)]),
    "masked": (np.ma.array([1, 2], mask=[False, True]), [1, None]),
}


@pytest.mark.parametrize(("raw", "expected"), BY_ROW.values(), ids=BY_ROW)
def test_each_row_gets_its_own_entry(raw: Any, expected: list[object]) -> None:
    rows = per_row(raw, 2)
    assert rows == expected
    assert [type(row) for row in rows] == [type(row) for row in expected]


def test_a_single_moment_is_plain() -> None:
    assert plain(np.datetime64(MOMENT)) == MOMENT
    assert plain(np.datetime64("2026-01-02")) == date(2026, 1, 2)
    assert plain(pd.Timestamp(MOMENT, tz="UTC")) == MOMENT.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "raw",
    [
        pd.period_range("2026", periods=2, freq="Y"),
        pd.interval_range(0, 2),
        pd.Series(pd.to_timedelta([1, 2], unit="s")),
        np.array([1j, 2]),
        np.array([1, 2], dtype=np.longdouble),
        [object(), object],
        [enum.Enum("Bare", "A").A, 1],
    ],
    ids=lambda raw: type(raw).__name__,
)
def test_values_without_a_json_form_are_refused(raw: Any) -> None:
    with pytest.raises(ModelFailed, match="which has no JSON form"):
        per_row(raw, 2)


@pytest.mark.parametrize(
    "raw", [pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame([[1, 2]], columns=["1", 1]), [{"1": 1, 1: 2}]]
)
def test_columns_of_the_same_name_are_refused_instead_of_dropped(raw: Any) -> None:
    with pytest.raises(ModelFailed, match="two columns named"):
        per_row(raw, 1)


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        ({}, "a dict whose columns do not have one value per row for 2 rows"),
        ({"a": [1, 2], "b": [1]}, "a dict whose columns do not have one value per row for 2 rows"),
        ({"a": [1, 2], "version": "1"}, "a dict whose columns do not have one value per row for 2 rows"),
        (itertools.count(), "more than 2 predictions for 2 rows"),
        (iter([1]), "1 predictions for 2 rows"),
        (np.float64(1), "one float64 for 2 rows"),
    ],
)
def test_another_number_of_predictions_is_refused(raw: Any, cause: str) -> None:
    with pytest.raises(ModelFailed, match=cause):
        per_row(raw, 2)
