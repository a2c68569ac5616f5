"""Converts a model's output from numpy and pandas to plain Python values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from typing import Any

from likewise.core.errors import ModelFailed
from likewise.core.extras import need

_PLAIN = (str, int, float, bool, bytes, type(None))


def plain(value: Any) -> object:
    """`value` as JSON types plus bytes, date and datetime; raises ModelFailed for a type that cannot be converted.

    Follows MLflow's scoring server (`predictions_to_json`): a data frame or series becomes a list of records, an array
    a nested list; anything else keeps its shape.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return dict(zip(_unique(value), map(plain, value.values()), strict=True))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return _scalar(value) if not hasattr(value, "__array__") else _array(value)


def per_row(predictions: Any, rows: int) -> list[object]:
    """One plain prediction for each of `rows` rows; raises ModelFailed if the model returned a different number.

    A mapping of columns (`{"label": [...], "score": [...]}`) is treated as a data frame: one record per row.
    """
    if isinstance(predictions, Mapping):
        columns = {key: plain(column) for key, column in predictions.items()}
        if all(isinstance(c, list) and len(c) == rows for c in columns.values()):
            names = _unique(columns)
            return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        raise _miscount(f"a {type(predictions).__name__} whose columns do not have one value per row", rows)
    listed = plain(predictions)
    if not isinstance(listed, list):
        raise _miscount(f"one {type(predictions).__name__}", rows)
    if len(listed) != rows:
        raise _miscount(f"{len(listed)} predictions", rows)
    return listed


def _miscount(returned: str, rows: int) -> ModelFailed:
    return ModelFailed(
        f"the model returned {returned} for {rows} rows, so the predictions cannot be assigned to rows",
        remedy="let the model return one prediction per row, in order; or declare it as not row-wise",
    )


def _array(value: Any) -> object:
    pandas, numpy = need("pandas", extra="mlflow"), need("numpy", extra="mlflow")
    if isinstance(value, pandas.Series):
        value = pandas.DataFrame(value)
    if isinstance(value, pandas.DataFrame):
        return _records(value)
    if isinstance(value, (numpy.ndarray, numpy.generic)) and value.dtype.kind == "M":
        value = value.astype("datetime64[us]")  # finer ones become plain integers
    return plain(value.tolist())


def _records(frame: Any) -> list[object]:
    names = _unique(frame.columns)
    columns = [[plain(cell) for cell in frame.iloc[:, index].tolist()] for index in range(len(names))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] if columns else [{}] * len(frame)


def _unique(keys: Iterable[object]) -> list[str]:
    """The keys as JSON writes them; ModelFailed if two are equal, because a record would keep only one of them."""
    names = [_name(key) for key in keys]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelFailed(
            f"the model returned two columns named {twice!r}", remedy="let the model return each column once"
        )
    return names


def _name(key: object) -> str:
    """A key as JSON writes it."""
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return str(key)


def _scalar(value: Any) -> object:
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, (date, datetime)):
        return value.to_pydatetime() if hasattr(value, "to_pydatetime") else value
    if isinstance(value, time):
        return value.isoformat()
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (str, int, float)):  # an enumeration, or another subclass
        return next(kind(value) for kind in (str, int, float) if isinstance(value, kind))
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise ModelFailed(
        f"the model returned a {kind}, which has no JSON form",
        remedy="let the model return data frames, arrays, or plain Python values",
    )
