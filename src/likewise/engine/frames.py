"""Inputs of `predict`, as MLflow takes them: as rows, as a copy or as a request; predictions as a DataFrame."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from likewise.core.casts import Mismatch, Source
from likewise.core.errors import RowRefused
from likewise.core.extras import need
from likewise.core.fields import field_cast
from likewise.core.items import Table
from likewise.core.json_values import json_form
from likewise.core.signature import Field, Signature

REQUEST = {"dataframe_split", "dataframe_records", "instances", "inputs"}
"""A dict with one of these keys is the JSON of a request."""

_LOSSY = frozenset({"double", "float", "boolean"})  # MLflow rounds a Decimal, and takes null for a required boolean


def own_copy(data: Any) -> Any:
    """A copy that a model may change, down to lists and objects in cells."""
    try:
        copied = copy.deepcopy(data)
    except TypeError:  # an iterator, a Spark frame: the model can only read it
        return data
    if not hasattr(copied, "iloc"):
        return copied
    if copied.ndim == 1:
        return _own_cells(copied)
    for at, dtype in enumerate(copied.dtypes):
        if dtype.kind == "O":
            copied.isetitem(at, _own_cells(copied.iloc[:, at]))
    return copied


def _own_cells(column: Any) -> Any:
    """A Series with copies of its objects: pandas copies only the references to them."""
    if column.dtype != object:
        return column
    values = [copy.deepcopy(value) for value in column]
    return type(column)(values, index=column.index, name=column.name, dtype=object)


def check_exact(data: Any, signature: Signature) -> None:
    """Raise RowRefused, with row and column, for a value in a column of objects that MLflow would change."""
    for column, field in _columns(data, signature):
        if field.kind in _LOSSY and column.dtype == object:
            _cast(column, field)


def explain(data: Any, signature: Signature) -> None:
    """Raise RowRefused for missing required columns, or else for the first value that does not fit."""
    names = getattr(data, "columns", data if isinstance(data, Mapping) else None)
    if names is not None:
        _check_columns([str(name) for name in names], signature)
    for column, field in _columns(data, signature):
        _cast(column, field)


def missing_columns(missing: Sequence[str], columns: Sequence[str]) -> RowRefused:
    """The error for an input with `columns` that lacks those in `missing`."""
    return RowRefused(
        f"the input lacks the column {', '.join(map(repr, missing))}; it has: {', '.join(columns) or 'none'}",
        remedy="give every required column of the model's signature, as shown by: likewise inspect MODEL",
    )


def _check_columns(columns: Sequence[str], signature: Signature) -> None:
    required = [field.name for field in signature.inputs or () if field.required and field.name is not None]
    if missing := [name for name in required if name not in columns]:
        raise missing_columns(missing, columns)


def _columns(data: Any, signature: Signature) -> Iterator[tuple[Any, Field]]:
    """The columns of a frame that the signature declares; none if names are not unique."""
    names = getattr(data, "columns", None)
    if names is not None and names.is_unique:
        declared = [field for field in signature.inputs or () if field.name is not None and field.name in names]
        yield from ((data[field.name], field) for field in declared)


def _cast(column: Any, field: Field) -> list[object]:
    """The values as the field's type; RowRefused for the first one that does not fit."""
    cast = field_cast(field, Source.TYPED)
    values = []
    for row, value in enumerate(cells(column)):
        try:
            values.append(cast(value))
        except Mismatch as error:
            raise RowRefused(
                f"row {row}, column {field.name!r}: expected {error}, got {value!r:.100}",
                remedy="correct the value; rows count from 0",
            ) from error
    return values


def cells(column: Any) -> list[Any]:
    """The values of a pandas Series as the types of `core.items`; None for missing ones, lists for arrays."""
    pandas = need("pandas", extra="mlflow")
    return [_plain(pandas, value) for value in column.tolist()]


def _plain(pandas: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(pandas, member) for key, member in value.items()}
    if hasattr(value, "tolist") and not isinstance(value, str):
        value = value.tolist()  # an array, or a NumPy scalar
    if isinstance(value, (list, tuple)):
        return [_plain(pandas, element) for element in value]
    return None if value is None or value is pandas.NA or value is pandas.NaT or value != value else value


def table_of(data: Any, signature: Signature) -> Table:
    """The rows of any input of `predict` for a model with named columns.

    Raises RowRefused for a required column that is missing, and for a value that does not fit.
    """
    frame = _frame(data, signature.columns or ())
    fields = {field.name: field for field in signature.inputs or ()}
    columns = [str(name) for name in frame.columns]
    _check_columns(columns, signature)
    values = []
    for at, name in enumerate(columns):
        column = frame.iloc[:, at]
        values.append(_cast(column, fields[name]) if name in fields else cells(column))
    return Table(tuple(columns), list(zip(*values, strict=True)))


def _frame(data: Any, names: Sequence[str]) -> Any:
    pandas = need("pandas", extra="mlflow")
    if hasattr(data, "columns"):
        return data
    if isinstance(data, Mapping):
        return pandas.DataFrame([data] if _is_record(data) else data)
    if isinstance(data, str):
        data = [data]
    if hasattr(data, "name"):  # a Series
        data = data.tolist()
    if isinstance(data, list) and data and isinstance(data[0], Mapping):
        return pandas.DataFrame(data)
    return pandas.DataFrame(data, columns=list(names[:1]) if len(names) == 1 else list(names) or None)


def request_body(data: Any, params: Mapping[str, object] | None = None) -> bytes:
    """The JSON of a request to `/invocations` for any input of `predict`; a dict with a key in REQUEST is one already.

    Raises TypeError for a value that JSON cannot express.
    """
    document = {**_request(data), **({"params": dict(params)} if params else {})}
    return json.dumps(document, default=json_form).encode()


def _request(data: Any) -> Mapping[str, object]:
    if hasattr(data, "iloc"):
        if data.ndim == 1:
            return {"inputs": cells(data)}
        columns = [cells(data.iloc[:, at]) for at in range(data.shape[1])]
        return {"dataframe_split": {"columns": list(map(str, data.columns)), "data": list(zip(*columns, strict=True))}}
    if isinstance(data, Mapping):
        if REQUEST & data.keys():
            return data
        return {"dataframe_records": [data]} if _is_record(data) else {"inputs": data}
    if isinstance(data, list) and data and isinstance(data[0], Mapping):
        return {"dataframe_records": data}
    return {"inputs": [data] if isinstance(data, str) else data}


def _is_record(data: Mapping[str, object]) -> bool:
    """Whether a dict is one row, rather than columns."""
    return not any(isinstance(value, (list, tuple)) or hasattr(value, "__array__") for value in data.values())


def as_frame(predictions: object, data: Any, names: Sequence[str] = ()) -> Any:
    """Predictions with columns as a DataFrame, with the index of a frame `data`; others as they are.

    names: the columns if there are no rows.
    """
    records = isinstance(predictions, list) and all(isinstance(each, dict) for each in predictions)
    if not isinstance(predictions, list) or not records or not (predictions or names):
        return predictions
    index = getattr(data, "index", None) if len(predictions) == len(data) and hasattr(data, "columns") else None
    return need("pandas", extra="mlflow").DataFrame(predictions, index=index, columns=None if predictions else names)
