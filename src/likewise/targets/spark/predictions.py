"""Conversion of predictions to values of one Arrow type, by the rules of `spark_udf`.

Source: MLflow's documentation of `mlflow.pyfunc.spark_udf`, `result_type`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from typing import Any

from likewise.batch.values import as_cell
from likewise.core.errors import LikewiseError, RowRefused
from likewise.core.extras import need
from likewise.core.results import Failed, Result

Convert = Callable[[object], object]


class WrongResultType(ValueError):
    """A prediction that cannot be converted to the result type."""


def arrow_array(results: Sequence[Result], kind: Any, on_error: str) -> Any:
    """One value per result, as a `pyarrow.Array` of exactly the type `kind`.

    A row without a prediction is null if `on_error` is `null`, else its error is raised.
    """
    pairs = _pairs(results, kind)
    first_error = next((error for _, error in pairs if error is not None), None)
    if first_error is not None and on_error != "null":
        raise first_error
    return need("pyarrow", extra="batch").array([value for value, _ in pairs], kind)


def values_and_errors(results: Sequence[Result], kind: Any) -> tuple[list[object], list[dict[str, str] | None]]:
    """One value and one error per result; one of the two is None (both, for a prediction that is null)."""
    pairs = _pairs(results, kind)
    return [value for value, _ in pairs], [None if error is None else error.as_dict() for _, error in pairs]


def _pairs(results: Sequence[Result], kind: Any) -> list[tuple[object, LikewiseError | None]]:
    convert = converter(kind)
    return [_value(result, convert, kind) for result in results]


def _value(result: Result, convert: Convert, kind: Any) -> tuple[object, LikewiseError | None]:
    if isinstance(result, Failed):
        return None, result.error
    try:
        return convert(result.value), None
    except (WrongResultType, OverflowError) as error:
        return None, RowRefused(
            f"the prediction does not fit the result type {kind}: {error}",
            remedy="choose another result_type; 'string' accepts every prediction",
        )


def converter(kind: Any) -> Convert:
    """A function that converts a row's prediction, a record or a plain value, to the type `kind`."""
    types = need("pyarrow", extra="batch").types
    if types.is_list(kind) and not types.is_nested(kind.value_type):
        return partial(_all_that_fit, _cast(kind.value_type))
    if types.is_struct(kind) or types.is_map(kind) or types.is_list(kind):
        return _cast(kind)
    return partial(_leftmost, _cast(kind), types.is_string(kind) or types.is_large_string(kind))


def _leftmost(cast: Convert, textual: bool, value: object) -> object:
    """The leftmost column that fits the type; for text, the leftmost column."""
    members = _members(value)
    if members is None:
        return cast(value)
    if textual and members:
        return cast(members[0])
    match = next((member for member in members if member is not None and _fits(cast, member)), None)
    if match is None and None not in members:
        raise WrongResultType(f"it has no value of that type: {_short(value)}")
    return cast(match)


def _all_that_fit(cast: Convert, value: object) -> object:
    if value is None:
        return None
    members = _members(value)
    fitting = [m for m in ([value] if members is None else members) if m is None or _fits(cast, m)]
    if members and not fitting:
        raise WrongResultType(f"it has no value of that type: {_short(value)}")
    return [cast(member) for member in fitting]


def _members(value: object) -> list[object] | None:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else None


def _fits(cast: Convert, value: object) -> bool:
    try:
        cast(value)
    except (WrongResultType, OverflowError):
        return False
    return True


def _cast(kind: Any) -> Convert:
    """A conversion to exactly this type, which leaves null as it is and raises WrongResultType."""
    return partial(_unless_null, _exact(kind))


def _unless_null(convert: Convert, value: object) -> object:
    return None if value is None else convert(value)


def _exact(kind: Any) -> Convert:
    types = need("pyarrow", extra="batch").types
    if types.is_struct(kind):
        return partial(_record, {field.name: _cast(field.type) for field in kind})
    if types.is_map(kind):
        return partial(_entries, _cast(kind.item_type))
    if types.is_list(kind) or types.is_large_list(kind):
        return partial(_elements, _cast(kind.value_type))
    if types.is_integer(kind):
        return partial(_integer, kind.bit_width)
    for is_kind, scalar in _SCALARS.items():
        if getattr(types, is_kind)(kind):
            return scalar
    raise RowRefused(f"a prediction cannot be of type {kind}", remedy="choose another result_type")


def _record(casts: Mapping[str, Convert], value: object) -> object:
    if not isinstance(value, Mapping):
        raise WrongResultType(f"expected a record of {', '.join(casts)}, got {_short(value)}")
    if missing := [name for name in casts if name not in value]:
        raise WrongResultType(f"it has no `{missing[0]}`: {_short(value)}")
    return {name: cast(value[name]) for name, cast in casts.items()}


def _entries(cast: Convert, value: object) -> object:
    if not isinstance(value, Mapping):
        raise WrongResultType(f"expected a mapping, got {_short(value)}")
    return [(str(key), cast(member)) for key, member in value.items()]


def _elements(cast: Convert, value: object) -> object:
    if not isinstance(value, (list, tuple)):
        raise WrongResultType(f"expected a list, got {_short(value)}")
    return [cast(member) for member in value]


def text_of(value: object) -> str:
    """A plain value as `spark_udf` prints it, a record or a list as JSON; WrongResultType for lone surrogates."""
    text = str(value) if isinstance(value, (str, bool, int, float, date)) else as_cell(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WrongResultType(f"it is not valid Unicode: {json.dumps(text)[:100]}") from error
    return text


def _integer(bits: int, value: object) -> int:
    limit = 1 << (bits - 1)
    if not isinstance(value, int) or isinstance(value, bool) or not -limit <= value < limit:
        raise WrongResultType(f"{_short(value)} is not an integer of {bits} bits")
    return value


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise WrongResultType(f"{_short(value)} is not a number")
    return float(value)


def _instance(kind: type, value: object) -> object:
    if not isinstance(value, kind):
        raise WrongResultType(f"{_short(value)} is a {type(value).__name__}")
    return value


def _short(value: object) -> str:
    return repr(value)[:100]


# the name of pyarrow's predicate of a type: the conversion to that type
_SCALARS: dict[str, Convert] = {
    "is_string": text_of,
    "is_large_string": text_of,
    "is_floating": _number,
    "is_boolean": partial(_instance, bool),
    "is_binary": partial(_instance, bytes),
    "is_timestamp": partial(_instance, datetime),
    "is_date": partial(_instance, date),
}
