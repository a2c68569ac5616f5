"""Converts a model's output from numpy, pandas and other libraries to plain Python values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from typing import Any
from uuid import UUID

from likewise.core.errors import ModelFailed
from likewise.core.extras import need

_PLAIN = (str, int, float, bool, bytes, type(None))
_LISTS = (list, tuple, set, frozenset, range, Iterator)


def plain(value: Any) -> object:
    """`value` as JSON types plus bytes, date and datetime; raises ModelFailed for a type that cannot be converted.

    Follows MLflow's scoring server (`predictions_to_json`): a data frame or series becomes a list of records, an array
    a nested list; anything else keeps its shape.  A series inside of another value becomes a list of its values.
    """
    if hasattr(value, "to_frame") and hasattr(value, "iloc"):  # a pandas Series
        return _records(value.to_frame())
    return _plain(value)


def per_row(predictions: Any, rows: int) -> list[object]:
    """One plain prediction for each of `rows` rows; raises ModelFailed if the model returned a different number.

    A mapping of columns (`{"label": [...], "score": [...]}`) is treated as a data frame: one record per row.  A column
    may be anything with one entry per row: a list, an array of any rank, a series, a data frame, another mapping.
    """
    listed = plain(islice(predictions, rows + 1) if isinstance(predictions, Iterator) else predictions)
    if isinstance(listed, dict):
        if (by_row := _by_row(listed, rows)) is None:
            raise miscount(f"a {type(predictions).__name__} whose columns do not have one value per row", rows)
        return by_row
    if not isinstance(listed, list):
        raise miscount(f"one {type(predictions).__name__}", rows)
    if len(listed) != rows:
        more_than = isinstance(predictions, Iterator) and len(listed) > rows
        raise miscount(f"more than {rows} predictions" if more_than else f"{len(listed)} predictions", rows)
    return listed


def _by_row(columns: Mapping[str, object], rows: int) -> list[object] | None:
    """One record for each of `rows` rows; None if a column does not have one entry per row."""
    lists = [_by_row(column, rows) if isinstance(column, dict) else column for column in columns.values()]
    if not lists or not all(isinstance(column, list) and len(column) == rows for column in lists):
        return None
    return [dict(zip(columns, entries, strict=True)) for entries in zip(*lists, strict=True)]


def miscount(returned: str, rows: int) -> ModelFailed:
    """The error of a model that has not returned one prediction per row. returned: what it has returned."""
    return ModelFailed(
        f"the model returned {returned} for {rows} rows, so the predictions cannot be assigned to rows",
        remedy="let the model return one prediction per row, in order; or declare it as not row-wise",
    )


def _plain(value: Any) -> object:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return dict(zip(_names(value), map(_plain, value.values()), strict=True))
    if isinstance(value, _LISTS):
        return [_plain(item) for item in value]
    if hasattr(value, "toarray"):  # a sparse matrix of scipy
        value = value.toarray()
    return _array(value) if hasattr(value, "__array__") else _scalar(value)


def _array(value: Any) -> object:
    pandas, numpy = need("pandas", extra="mlflow"), need("numpy", extra="mlflow")
    if isinstance(value, pandas.DataFrame):
        return _records(value)
    if not hasattr(value, "tolist"):  # a tensor of TensorFlow
        value = numpy.asarray(value)
    kind = value.dtype.kind if isinstance(value, (numpy.ndarray, numpy.generic)) else ""
    if kind == "M":
        return _moments(numpy, value)
    if getattr(value, "is_sparse", False):  # a tensor of torch
        value = value.to_dense()
    listed = value.tolist()
    if kind and kind in "biuf" and value.dtype.itemsize <= _BYTES:
        return listed  # of plain numbers
    if isinstance(listed, numpy.generic):  # a type that Python lacks, such as longdouble
        raise _no_form(listed)
    return _plain(listed)


def _moments(numpy: Any, value: Any) -> object:
    """Dates as Python's, in ISO 8601 if they are more precise than microseconds, or outside of the years 1 to 9999."""
    unit = numpy.datetime_data(value.dtype)[0]
    coarse = value.astype("datetime64[us]") if unit in ("ns", "ps", "fs", "as") else value
    exact = numpy.isnat(value) | (coarse.astype(value.dtype) == value)
    texts = numpy.datetime_as_string(value)
    objects = numpy.asarray(coarse).astype(object)
    chosen = numpy.frompyfunc(lambda same, one, text: one if same and not isinstance(one, int) else str(text), 3, 1)
    listed = numpy.asarray(chosen(exact, objects, texts), dtype=object)
    return _plain(listed.tolist())


def _records(frame: Any) -> list[object]:
    names = _names(frame.columns)
    columns = [[_plain(cell) for cell in frame.iloc[:, index].tolist()] for index in range(len(names))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] if columns else [{}] * len(frame)


def _names(keys: Any) -> list[str]:
    """Keys as JSON writes them; ModelFailed if two of them are equal then."""
    names = [_name(key) for key in keys]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelFailed(
            f"the model returned two columns named {twice!r}", remedy="let the model give each column its own name"
        )
    return names


def _name(key: object) -> str:
    return json.dumps(key) if key is None or isinstance(key, bool) else str(key)


def _scalar(value: Any) -> object:
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, (date, datetime, time)):
        return _moment(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):  # an enumeration, or another subclass
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return next(kind(value) for kind in (int, float) if isinstance(value, kind))
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise _no_form(value)


def _moment(value: Any) -> object:
    if isinstance(value, time) or getattr(value, "nanosecond", False):  # Python's datetime has only microseconds
        return str(value.isoformat())
    return value.to_pydatetime() if hasattr(value, "to_pydatetime") else value


def _no_form(value: object) -> ModelFailed:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return ModelFailed(
        f"the model returned a {kind}, which has no JSON form",
        remedy="let the model return data frames, arrays, or plain Python values",
    )


_BYTES = 8  # of the largest number that Python represents exactly
