"""Predictions as values of one Arrow type, by `spark_udf`'s rules.

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
    """A prediction that its declared type does not hold."""


def arrow_array(results: Sequence[Result], kind: Any, on_error: str) -> Any:
    """One value a result as a `pyarrow.Array` of exactly the type `kind`.

    A row without an answer is null where `on_error` is `null`, else its error is raised.
    """
    pairs = _pairs(results, kind)
    refused = next((error for _, error in pairs if error is not None), None)
    if refused is not None and on_error != "null":
        raise refused
    return need("pyarrow", extra="batch").array([value for value, _ in pairs], kind)


def values_and_errors(results: Sequence[Result], kind: Any) -> tuple[list[object], list[dict[str, str] | None]]:
    """One value and one error a result; one of the two is None (both, for a prediction that is null)."""
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
            remedy="ask for another result_type; 'string' holds every prediction",
        )


def converter(kind: Any) -> Convert:
    """From a row's whole prediction, a record or a plain value, to the type `kind`."""
    types = need("pyarrow", extra="batch").types
    if types.is_list(kind) and not types.is_nested(kind.value_type):
        return partial(_all_that_fit, _cast(kind.value_type))
    if types.is_struct(kind) or types.is_map(kind) or types.is_list(kind):
        return _cast(kind)
    return partial(_leftmost, _cast(kind), types.is_string(kind) or types.is_large_string(kind))


def _leftmost(cast: Convert, textual: bool, value: object) -> object:
    """The leftmost column that has the type, as text the leftmost one."""
    members = _members(value)
    if members is None:
        return cast(value)
    if textual and members:
        return cast(members[0])
    found = next((member for member in members if member is not None and _fits(cast, member)), None)
    if found is None and None not in members:
        raise WrongResultType(f"it has no value of that type: {_short(value)}")
    return cast(found)


def _all_that_fit(cast: Convert, value: object) -> object:
    if value is None:
        return None
    members = _members(value)
    kept = [m for m in ([value] if members is None else members) if m is None or _fits(cast, m)]
    if members and not kept:
        raise WrongResultType(f"it has no value of that type: {_short(value)}")
    return [cast(member) for member in kept]


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
    """One value of exactly this type, null stays null; Unfit for another."""
    return partial(_nulled, _exact(kind))


def _nulled(convert: Convert, value: object) -> object:
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
    raise RowRefused(f"a prediction cannot be of type {kind}", remedy="ask for another result_type")


def _record(casts: Mapping[str, Convert], value: object) -> object:
    if not isinstance(value, Mapping):
        raise WrongResultType(f"expected a record of {', '.join(casts)}, got {_short(value)}")
    if lacking := [name for name in casts if name not in value]:
        raise WrongResultType(f"it has no `{lacking[0]}`: {_short(value)}")
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
    """As `spark_udf` prints a plain value; a record or a list as JSON; lone surrogates, which Spark lacks, refused."""
    text = str(value) if isinstance(value, (str, bool, int, float, date)) else as_cell(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WrongResultType(f"it is not valid Unicode: {json.dumps(text)[:100]}") from error
    return text


def _integer(bits: int, value: object) -> int:
    limit = 1 << (bits - 1)
    if not isinstance(value, int) or isinstance(value, bool) or not -limit <= value < limit:
        raise WrongResultType(f"{_short(value)} is no whole number of {bits} bits")
    return value


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise WrongResultType(f"{_short(value)} is no number")
    return float(value)


def _of(kind: type, value: object) -> object:
    if not isinstance(value, kind):
        raise WrongResultType(f"{_short(value)} is a {type(value).__name__}")
    return value


def _short(value: object) -> str:
    return repr(value)[:100]


# pyarrow's predicate of a type: the cast to it
_SCALARS: dict[str, Convert] = {
    "is_string": text_of,
    "is_large_string": text_of,
    "is_floating": _number,
    "is_boolean": partial(_of, bool),
    "is_binary": partial(_of, bytes),
    "is_timestamp": partial(_of, datetime),
    "is_date": partial(_of, date),
}
