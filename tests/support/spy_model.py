"""The spy model: for each row, it returns a description of the values and types that it got, as one line of JSON.

A description is independent of the way the predictions travel: it is ASCII text, and it is exact (floats in
hexadecimal, times with nanoseconds). It keeps apart what Python keeps apart: `None`, NaN, `NaT` and `NA`; `int` and
`numpy.int64`; `list` and `numpy.ndarray`.
"""

import datetime
import json
from typing import Any  # noqa: F401  for type hints that tests insert

import mlflow
import numpy as np
import pandas as pd
import pydantic


class Thing(pydantic.BaseModel):
    """The model for type hints."""

    n: int
    name: str = "x"
    weight: float | None = None


def described(value):  # type: ignore[no-untyped-def]
    """A value as nested lists: the name of its type, and its content."""
    kind = type(value)
    name = f"numpy.{kind.__name__}" if isinstance(value, np.generic) else kind.__name__
    if value is None or value is pd.NaT or value is pd.NA:
        return [name]
    if isinstance(value, np.ndarray):
        return [name, str(value.dtype), list(value.shape), [described(element) for element in value.ravel()]]
    if isinstance(value, (list, tuple)):
        return [name, [described(element) for element in value]]
    if isinstance(value, dict):
        return [name, [[described(key), described(member)] for key, member in value.items()]]
    if isinstance(value, pydantic.BaseModel):
        return [name, [[described(key), described(member)] for key, member in value]]
    return [name, _text(value)]


def _text(value):  # type: ignore[no-untyped-def]
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return float(value).hex()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, np.datetime64):
        return "NaT" if np.isnat(value) else str(value.astype("datetime64[ns]"))
    return value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else str(value)


def rows(data):  # type: ignore[no-untyped-def]
    """A description of each row: the fields with their dtype and value; without fields, the element."""
    if isinstance(data, pd.DataFrame):
        fields = [(name, str(data.dtypes.iloc[at]), data.iloc[:, at]) for at, name in enumerate(data.columns)]
        return [{"frame": [[n, dtype, described(c.iloc[row])] for n, dtype, c in fields]} for row in range(len(data))]
    if isinstance(data, dict) and data and all(isinstance(value, np.ndarray) and value.ndim for value in data.values()):
        count = len(next(iter(data.values())))
        return [{"arrays": [[n, str(a.dtype), described(a[row])] for n, a in data.items()]} for row in range(count)]
    if isinstance(data, np.ndarray) and data.ndim:
        return [{"array": [["", str(data.dtype), described(row)]]} for row in data]
    if isinstance(data, list):
        return [{"list": [["", "", described(element)]]} for element in data]
    return [{"whole": [["", "", described(data)]]}]


class Spy(mlflow.pyfunc.PythonModel):
    """Returns the descriptions."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow would read the hints
        return [json.dumps({**row, "params": described(params)}) for row in rows(model_input)]


mlflow.models.set_model(Spy())
