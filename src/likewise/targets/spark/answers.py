"""What a model returns for the rows of one call, as rows with types of columns, by which `spark_udf` selects them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any, Final

from likewise.core.errors import ModelFailed
from likewise.core.extras import need
from likewise.engine.plain_values import miscount, plain

NO_ELEMENT: Final = object()  # the rows of a data frame or of a mapping of columns are not elements of a list


class Kind(IntEnum):
    """The type of a column. Of two numeric kinds, the greater is that of a column which has both."""

    EMPTY = 0  # no value yet: only nulls
    SMALL = 1  # an integer that always fits into 32 bits
    LONG = 2
    UNSIGNED = 3  # 32 or 64 bits
    FLOAT = 4
    DECIMAL = 5
    BOOLEAN = 6
    TIME = 7
    DATE = 8
    BYTES = 9
    OTHER = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's prediction for one row. element: what the model returned for it in a list or array, else NO_ELEMENT."""

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    values: tuple[object, ...]
    element: object = NO_ELEMENT


def answers(predictions: Any, rows: int) -> list[object]:
    """One `Answer` for each of `rows` rows: the columns are those of `pandas.DataFrame(predictions)`.

    Unlike there, values keep their type: integers next to nulls do not become floats.  Raises ModelFailed if the model
    returned another number of rows.
    """
    pandas, numpy = need("pandas", extra="mlflow"), need("numpy", extra="mlflow")
    if isinstance(predictions, pandas.Series):
        columns = [("0" if predictions.name is None else str(predictions.name), predictions)]
    elif isinstance(predictions, pandas.DataFrame):
        columns = [(str(name), predictions.iloc[:, index]) for index, name in enumerate(predictions.columns)]
    elif isinstance(predictions, Mapping):
        columns = [(str(name), _listed(column)) for name, column in predictions.items()]
    else:
        if rows == 1 and numpy.isscalar(predictions):
            predictions = [predictions]
        return list(_elements(predictions, rows))
    kinds = tuple(_kind_of_column(column) for _, column in columns)
    values = [list(column) if isinstance(column, list) else column.tolist() for _, column in columns]
    if any(len(column) != rows for column in values) or not values:
        raise miscount(f"{len(values[0]) if values else 'no'} predictions", rows)
    names = tuple(name for name, _ in columns)
    return [Answer(names, kinds, row) for row in zip(*values, strict=True)]


def answer_of(value: object) -> Answer:
    """The prediction of an engine that returns plain values, a record or a single value, whose types are its kinds."""
    if isinstance(value, Answer):
        return value
    names, values = _columns_of(value)
    return Answer(names, tuple(map(kind_of, values)), values, value)


def kind_of(value: object) -> Kind:
    """The kind of a single value."""
    if is_missing(value):
        return Kind.FLOAT if isinstance(value, float) else Kind.EMPTY
    if hasattr(value, "dtype") and not isinstance(value, (list, tuple)):
        return _kind_of_dtype(value.dtype) if getattr(value, "ndim", 1) == 0 else Kind.OTHER
    return next((kind for type_, kind in _KINDS if isinstance(value, type_)), Kind.OTHER)


def is_missing(value: object) -> bool:
    """Whether pandas treats the value as missing: None, NaN, NA, NaT."""
    missing = value is None or (isinstance(value, float) and value != value)  # as is only NaN
    return missing or type(value).__name__ in ("NAType", "NaTType")


def _elements(predictions: Any, rows: int) -> Iterable[Answer]:
    elements = _listed(predictions)
    if len(elements) != rows:
        raise miscount(f"{len(elements)} predictions", rows)
    split = [_columns_of(element) for element in elements]
    dtype = getattr(predictions, "dtype", None)
    kinds: dict[str, Kind] = {}
    for names, values in split:
        for name, value in zip(names, values, strict=True):
            kind = kind_of(value) if dtype is None or dtype.kind == "O" else _kind_of_dtype(dtype)
            kinds[name] = _merged(kinds.get(name, Kind.EMPTY), kind)
    for element, (names, values) in zip(elements, split, strict=True):
        yield Answer(names, tuple(kinds[name] for name in names), values, element)


def _listed(values: Any) -> list[Any]:
    if isinstance(values, (list, tuple)):
        return list(values)
    if isinstance(values, (str, bytes)) or not hasattr(values, "__array__"):
        listed = plain(values)  # raises ModelFailed for other objects
        if isinstance(listed, list):
            return listed
        raise ModelFailed(
            f"the model returned one {type(values).__name__} for a column or a batch of rows",
            remedy="let the model return one prediction per row, in order",
        )
    array = values if hasattr(values, "tolist") else need("numpy", extra="mlflow").asarray(values)
    if getattr(array.dtype, "kind", "O") == "M" and array.ndim == 1:
        array = need("pandas", extra="mlflow").Series(array)  # NumPy lists nanoseconds as integers
    listed = array.tolist()
    return listed if isinstance(listed, list) else [listed]


def _columns_of(element: Any) -> tuple[tuple[str, ...], tuple[object, ...]]:
    """The names and values of the columns into which pandas spreads an element of a list."""
    if is_dataclass(element) and not isinstance(element, type):
        element = asdict(element)
    elif hasattr(element, "_asdict"):
        element = element._asdict()  # a named tuple
    if isinstance(element, Mapping):
        return tuple(map(str, element)), tuple(element.values())
    if isinstance(element, (list, tuple)) or getattr(element, "ndim", 0) > 0:
        values = tuple(element)
        return tuple(map(str, range(len(values)))), values
    return ("0",), (element,)


def _kind_of_column(column: Any) -> Kind:
    if not isinstance(column, list):
        kind = _kind_of_dtype(getattr(column.dtype, "numpy_dtype", column.dtype))  # of Int64 and its like
        if kind is not Kind.OTHER or getattr(column.dtype, "kind", "O") != "O":
            return kind
    kind = Kind.EMPTY
    for value in column:
        kind = _merged(kind, kind_of(value))
    # objects in a data frame are not numbers, whatever they are
    return kind if isinstance(column, list) or kind not in NUMERIC else Kind.OTHER


def _kind_of_dtype(dtype: Any) -> Kind:
    kind = getattr(dtype, "kind", "O")
    if kind in "iu" and not hasattr(dtype, "categories"):
        if dtype.itemsize < 4 or dtype.name == "int32":
            return Kind.SMALL
        return Kind.LONG if kind == "i" else Kind.UNSIGNED
    return {"f": Kind.FLOAT, "b": Kind.BOOLEAN, "M": Kind.TIME}.get(kind, Kind.OTHER)


def _merged(first: Kind, second: Kind) -> Kind:
    if Kind.EMPTY in (first, second) or first == second:
        return max(first, second)
    return max(first, second) if max(first, second) <= Kind.DECIMAL else Kind.OTHER


def positions(kinds: Sequence[Kind], tiers: Sequence[frozenset[Kind]]) -> list[int]:
    """The columns of the first tier of kinds that any column has."""
    for tier in tiers:
        if found := [index for index, kind in enumerate(kinds) if kind in tier]:
            return found
    return []


NUMERIC = frozenset({Kind.SMALL, Kind.LONG, Kind.UNSIGNED, Kind.FLOAT, Kind.BOOLEAN})
_KINDS: tuple[tuple[type, Kind], ...] = (
    (bool, Kind.BOOLEAN),
    (int, Kind.LONG),
    (float, Kind.FLOAT),
    (Decimal, Kind.DECIMAL),
    (datetime, Kind.TIME),
    (date, Kind.DATE),
    (bytes, Kind.BYTES),
)
